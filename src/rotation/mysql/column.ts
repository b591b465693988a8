/** A column, as information_schema describes it. */
export interface SqlColumn {
  readonly name: string
  /** `varchar`, `bigint` … */
  readonly type: string
  readonly isUnsigned: boolean
  readonly charset: string | undefined
  readonly collation: string | undefined
  /** The largest value: characters of text, bytes of anything else. */
  readonly length: number | undefined
  readonly isUpdatedByItself: boolean
  /** Of a generated column. */
  readonly expression: string | undefined
}

const TEXT = /^(char|varchar|(tiny|medium|long)?text|enum|set)$/
const BINARY =
  /^(binary|varbinary|(tiny|medium|long)?blob|geometry|point|linestring|polygon|multi\w+|geometrycollection|vector)$/
const INTEGER = /^(tinyint|smallint|mediumint|int|bigint)$/

export const isText = ({ type }: SqlColumn): boolean => TEXT.test(type)
export const isBinary = ({ type }: SqlColumn): boolean => BINARY.test(type)
export const isInteger = ({ type }: SqlColumn): boolean => INTEGER.test(type)
