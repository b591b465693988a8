/** What stands for node.ts in a browser's bundle (package.json, "imports"), which never reaches Node's crypto. */
export const nodeCrypto: typeof import('./node.ts').nodeCrypto = () => undefined

export const nodeEngine: typeof import('./node.ts').nodeEngine = () => {
  throw new RangeError('a browser has no crypto module')
}
