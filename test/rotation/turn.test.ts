import { expect, it } from 'vitest'
import { WaxsealError } from 'waxseal'
import { forQueue } from '../../src/rotation/queue/turn.ts'

it('an error for the queue has a code of its own or of a client, and none of their messages', () => {
  const cause = new Error('https://kms.example/keys/7 said no')
  const ours = forQueue(new WaxsealError('KMS_DENIED', 'arn:aws:kms:eu:1:key/secret', { keyId: 'k', cause }))
  expect(ours).toMatchObject({ code: 'KMS_DENIED', message: 'KMS_DENIED; onError has it' })
  expect(ours.cause).toBeUndefined()
  expect(ours.keyId).toBeUndefined()
  expect(`${ours.stack}`).not.toMatch(/arn:|kms\.example/)
  const other = forQueue(Object.assign(new Error('value "Ann" is too long'), { code: '22001' }))
  expect(other.message).toContain('22001')
  expect(`${other.stack}`).not.toContain('Ann')
})
