import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What was asked, in the order of arrival. */
export interface Asked {
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** Instead of forwarding: answer this, hang, cut the line at once or in the middle of an answer, or edit the answer. */
export type Fault =
  | { readonly status: number; readonly body: string; readonly type?: string }
  | 'hang'
  | 'reset'
  | 'truncate'
  | ((answer: string) => string)

export interface FaultyProxy {
  readonly url: string
  readonly asked: Asked[]
  /** For every request while it is set, or for the next `times`. */
  fault: Fault | undefined
  times: number
  stop(): Promise<void>
}

/** An HTTP proxy in front of one server, for the faults that it does not make by itself. */
export async function startProxy(target: string): Promise<FaultyProxy> {
  const server = createServer((incoming, outgoing) => void handle(incoming, outgoing))
  const proxy: FaultyProxy = {
    url: '',
    asked: [],
    fault: undefined,
    times: Number.POSITIVE_INFINITY,
    stop() {
      server.closeAllConnections()
      return new Promise((done) => server.close(() => done()))
    },
  }

  async function handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await text(incoming)
    proxy.asked.push({ path: incoming.url ?? '', headers: incoming.headers, body })
    const fault = proxy.times-- > 0 ? proxy.fault : undefined
    if (fault === 'hang') return
    if (fault === 'reset') return void incoming.socket.destroy()
    if (typeof fault === 'object') {
      const type = fault.type ?? 'application/x-amz-json-1.1'
      return void outgoing.writeHead(fault.status, { 'content-type': type }).end(fault.body)
    }
    const { method, headers } = incoming
    const forwarded = request(`${target}${incoming.url}`, { method, headers }, async (answer) => {
      const whole = await text(answer)
      const sent = Buffer.from(typeof fault === 'function' ? fault(whole) : whole)
      const kept = { 'content-type': answer.headers['content-type'] ?? '', 'content-length': sent.length }
      outgoing.writeHead(answer.statusCode ?? 502, kept)
      if (fault !== 'truncate') return outgoing.end(sent)
      return outgoing.write(sent.subarray(0, sent.length >> 1), () => incoming.socket.destroy())
    })
    forwarded.on('error', () => outgoing.destroy())
    forwarded.end(body)
  }

  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  return Object.assign(proxy, { url: `http://127.0.0.1:${port}` })
}

async function text(stream: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
