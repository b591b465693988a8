import { afterEach, describe, expect, it, vi } from 'vitest'
import { vaultTransit } from 'waxseal/kms/vault'
import { dataOfJson, fromBase64, toBase64, toJson } from '../../src/kms/vault-json.ts'
import { CONTEXT, KEY } from './imitations/asked.ts'
import { VaultImitation } from './imitations/vault.ts'

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
const base64 = Buffer.from(KEY).toString('base64')

afterEach(() => void vi.restoreAllMocks())

describe('base64 in bytes', () => {
  it('is that of Node, there and back, for every length and byte', () => {
    for (let length = 0; length < 260; length++) {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255)
      expect(text(toBase64(bytes))).toBe(Buffer.from(bytes).toString('base64'))
      expect(fromBase64(toBase64(bytes))).toEqual(bytes)
    }
  })

  it.each([
    'A',
    'AA',
    'AAA',
    'AAAA=',
    'A===',
    '====',
    'AB==',
    'AAB=',
    'AA=A',
    '=AAA',
    'AA==AAAA',
    'AA-_',
    'AA A',
    'AA\n\n',
  ])('refuses %j', (wrong) => expect(fromBase64(ascii(wrong))).toBeUndefined())
})

describe('a request', () => {
  it('is what JSON.stringify makes of the same', () => {
    const json = toJson({ plaintext: KEY, ciphertext: 'a"\\é', empty: new Uint8Array(0) })
    expect(text(json)).toBe(JSON.stringify({ plaintext: base64, ciphertext: 'a"\\é', empty: '' }))
  })
})

describe('an answer', () => {
  it.each([
    `{"data":{"plaintext":"${base64}"}}`,
    `\t{ "x": ["plaintext", "\\"plaintext\\":\\"AAAA\\""],\n "data" : {"plaintext" \r\n: "${base64}" } } `,
    `{"data":{"plaintext":"${base64}"},"auth":{"plaintext":"AAAA"}}`,
  ])('%s holds the key', (json) => {
    expect(dataOfJson(ascii(json))).toEqual({ plaintext: KEY })
  })

  it.each([
    '{"data":{"plaintext":null}}',
    '{"data":{"plaintext":"*"}}',
    '{"data":{"plaintext":"AB=="}}',
    `{"data":{"plaintext":"${base64} "}}`,
    `{"data":{"plaintext":"${base64}","plaintext":"AAAA"}}`,
    `{"data":{"plaintext":"${base64}","pl\\u0061intext":"AAAA"}}`,
    `{"auth":{"plaintext":"${base64}"},"data":{"plaintext":"AAAA"}}`,
    `{"data":{"pl\\u0061intext":"${base64}"}}`,
  ])('%s holds none', (json) => {
    expect(dataOfJson(ascii(json))).toEqual({ plaintext: undefined })
  })

  it.each([`{"plaintext":"${base64}"}`, `{"data":{"x":{"plaintext":"${base64}"}}}`, '{}', 'null'])(
    '%s has no plaintext in its data',
    (json) => expect(dataOfJson(ascii(json)) ?? {}).not.toHaveProperty('plaintext'),
  )

  it.each([
    '',
    '{',
    '"plaintext"',
    '"plaintext":"',
    '"plaintext":"AAAA',
    '"plaintext" :',
    '{"data":{"plaintext":"AAAA"}',
  ])('%j throws, or has no data', (json) => {
    let data: unknown
    try {
      data = dataOfJson(ascii(json))
    } catch (error) {
      expect(error).toBeInstanceOf(SyntaxError)
    }
    expect(data).toBeUndefined()
  })
})

it('over fetch, no key is in a string of ours, and what was sent is wiped', async () => {
  const vault = await VaultImitation.start()
  vault.create('transit/keys/crm')
  const driver = vaultTransit({ address: vault.url, token: vault.token(), key: 'crm' })
  const sent: unknown[] = []
  const { fetch } = globalThis
  vi.spyOn(globalThis, 'fetch').mockImplementation((address, init) => {
    sent.push(init?.body)
    return fetch(address, init)
  })
  // The imitation is in this process too, and parses what it is sent: what it sees is not asked here.
  const decode = vi.spyOn(TextDecoder.prototype, 'decode')
  const blob = await driver.wrap(KEY, CONTEXT)
  const opened = await driver.unwrap(blob, CONTEXT)
  await vault.close()
  expect(opened).toEqual(KEY)
  expect(vault.calls[0]!.body.plaintext).toBe(base64)
  expect(decode.mock.results.length).toBeGreaterThan(2)
  expect(decode.mock.results.filter(({ value }) => String(value).includes(base64))).toEqual([])
  expect(sent).toHaveLength(3)
  for (const body of sent) expect(body).toEqual(new Uint8Array((body as Uint8Array).length))
})
