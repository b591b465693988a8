import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import * as echarts from 'echarts'
import type { Result } from '../harness.ts'

/**
 * Draws how time and memory grow with the rows, from what `npm run bench:rotation -- --json` printed (several files are
 * put together): docs/rotation-growth.svg.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string', default: 'docs/rotation-growth.svg' } },
})
if (positionals.length === 0) {
  console.error('usage: npm run plot:rotation -- [--out <file>] <what bench:rotation -- --json printed>…')
  process.exit(2)
}
const results = positionals.flatMap((file) => JSON.parse(readFileSync(file, 'utf8')) as Result[])

/** Legible on white and on black. */
const INK = '#808080'
const COLOURS = ['#2a8fd0', '#d9662b', '#7a9a2e', '#a06cc0']

/** [rows, value] of every line `<name>.rows_<n>`, smallest first. */
function points(name: string, of: (result: Result) => number | null): [number, number][] {
  const found = results.flatMap((result): [number, number][] => {
    const [start, rows] = result.name.split('.rows_')
    const y = of(result)
    return start === name && y !== null && /^\d+$/.test(rows ?? '') ? [[Number(rows), y]] : []
  })
  // Of a size that stands in several files, the last one's.
  return [...new Map(found)].sort(([a], [b]) => a - b)
}

const seconds = (name: string, side: 'value' | 'limit') =>
  points(name, (result) => result[side]).map(([rows, rate]) => [rows, rows / rate])
const lines = [
  { name: 'rewrap', panel: 0, data: seconds('rotation.rewrap', 'value') },
  { name: 're-encrypt', panel: 0, data: seconds('rotation.reencrypt', 'value') },
  { name: 'plain UPDATE, one column', panel: 0, data: seconds('rotation.rewrap', 'limit') },
  { name: 'plain UPDATE, seven columns', panel: 0, data: seconds('rotation.reencrypt', 'limit') },
  { name: 'rewrap', panel: 1, data: points('rotation.rewrap.rss', ({ value }) => value) },
  { name: 're-encrypt', panel: 1, data: points('rotation.reencrypt.rss', ({ value }) => value) },
  { name: 'plain UPDATE, one column', panel: 1, data: points('rotation.rewrap.rss', ({ limit }) => limit) },
  { name: 'plain UPDATE, seven columns', panel: 1, data: points('rotation.reencrypt.rss', ({ limit }) => limit) },
]
const names = [...new Set(lines.map(({ name }) => name))]
const sizes = points('rotation.rewrap', ({ value }) => value).map(([rows]) => rows)

const axis = { axisLine: { lineStyle: { color: INK } }, axisLabel: { color: INK }, nameTextStyle: { color: INK } }
const splitLine = { lineStyle: { color: INK, opacity: 0.25 } }
const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 820, height: 330 })
chart.setOption({
  animation: false,
  color: COLOURS,
  legend: { data: names, textStyle: { color: INK }, bottom: 0 },
  grid: [
    { left: 60, width: 320, top: 40, bottom: 75 },
    { left: 470, width: 320, top: 40, bottom: 75 },
  ],
  xAxis: [0, 1].map((gridIndex) => ({
    ...axis,
    gridIndex,
    type: 'log',
    min: Math.min(...sizes),
    max: Math.max(...sizes),
    name: 'rows',
    nameLocation: 'middle',
    nameGap: 26,
    axisLabel: { color: INK, formatter: (rows: number) => rows.toLocaleString('en') },
    splitLine,
  })),
  yAxis: [
    { ...axis, gridIndex: 0, type: 'log', name: 'seconds, one worker', splitLine },
    { ...axis, gridIndex: 1, type: 'value', min: 0, name: 'peak RSS of the worker, MB', splitLine },
  ],
  series: lines.map(({ name, panel, data }) => ({
    type: 'line',
    name,
    data,
    xAxisIndex: panel,
    yAxisIndex: panel,
    symbolSize: 6,
    itemStyle: { color: COLOURS[names.indexOf(name)]! },
    lineStyle: { type: name.startsWith('plain') ? 'dashed' : 'solid' },
  })),
})
writeFileSync(values.out, `${chart.renderToSVGString()}\n`)
chart.dispose()
console.log(`${values.out}: ${sizes.join(', ')} rows`)
