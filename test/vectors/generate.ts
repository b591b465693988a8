import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { generateVectors } from './make.ts'

// npm run vectors: writes the file that every implementation reads. It only changes when the format does.
writeFileSync(
  fileURLToPath(new URL('./envelope.json', import.meta.url)),
  `${JSON.stringify(generateVectors(), null, 1)}\n`,
)
