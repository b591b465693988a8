const CONFIDENCE = 0.95
const STEPS = 100

/**
 * With 95 % confidence at most this part of a population is broken, when `broken` of `drawn` rows of a random sample are: the
 * upper bound of Clopper and Pearson. With none broken it is about 3 / `drawn` (the rule of three). It holds for a sample without
 * replacement as well, where it is a little too high. 1 when nothing was drawn.
 */
export function mostBroken(broken: number, drawn: number): number {
  if (broken >= drawn) return 1
  let [low, high] = [broken / drawn, 1]
  for (let step = 0; step < STEPS && high - low > Number.EPSILON * high; step++) {
    const middle = (low + high) / 2
    if (atMost(broken, drawn, middle) > 1 - CONFIDENCE) low = middle
    else high = middle
  }
  return high
}

/** The probability of at most `k` hits in `n` draws of probability `p`, summed in logarithms: the first terms underflow. */
function atMost(k: number, n: number, p: number): number {
  const odds = Math.log(p) - Math.log1p(-p)
  let term = n * Math.log1p(-p)
  let sum = Math.exp(term)
  for (let i = 1; i <= k; i++) {
    term += Math.log((n - i + 1) / i) + odds
    sum += Math.exp(term)
  }
  return sum
}
