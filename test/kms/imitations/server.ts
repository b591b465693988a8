import type { IncomingMessage, Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Listens on this machine, at a port that is free. */
export async function listen(server: Server): Promise<{ port: number; url: string; close(): Promise<void> }> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}

export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** What a server answers over HTTP. */
export interface Reply {
  status: number
  body: unknown
  headers?: Record<string, string>
}

/** Changes the next answer; 'hang' gives none. */
export type Fault = (reply: Reply) => Reply | 'hang'
