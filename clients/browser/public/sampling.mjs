/**
 * Sampling: how the next token is chosen from the logits of the vocabulary, V.
 *
 * The steps, their order and their arithmetic (float64) are the same in all clients;
 * `tests/clients/sampler_cases.json` of the repository defines them: repetition penalty,
 * temperature, top-k, top-p, min-p.
 */
import { expect } from "./errors.mjs";

/**
 * @typedef {object} Sampling
 * @property {number} temperature  0 takes the most probable token; else logits are divided by it
 * @property {number} topK  keep the k largest logits (and what ties with the last); 0 keeps all
 * @property {number} topP  keep the fewest most probable tokens whose probabilities reach this sum;
 *   1 keeps all
 * @property {number} minP  keep tokens at least this fraction as probable as the most probable one;
 *   0 keeps all
 * @property {number} penalty  of repetition: divides positive, multiplies negative logits of tokens
 *   seen; 1 is none
 * @property {number | null} seed  of the random numbers; null draws fresh ones
 */

/** @type {Sampling} */
export const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, penalty: 1, seed: null };

/**
 * Throw a ClientError that names the first setting that is missing, no number or out of range.
 * @param {any} sampling  from a form, perhaps
 * @returns {Sampling}
 */
export function checkSampling(sampling) {
  const { temperature, topK, topP, minP, penalty, seed } = sampling;
  const isNumber = (/** @type {unknown} */ value) =>
    typeof value === "number" && Number.isFinite(value);
  const isCount = (/** @type {unknown} */ value) =>
    Number.isSafeInteger(value) && Number(value) >= 0;
  expect(
    "temperature",
    temperature,
    isNumber(temperature) && temperature >= 0,
    "a finite number, 0 or more",
  );
  expect("top-k", topK, isCount(topK), "an integer, 0 (off) or more");
  expect("top-p", topP, isNumber(topP) && topP > 0 && topP <= 1, "a number above 0, at most 1");
  expect("min-p", minP, isNumber(minP) && minP >= 0 && minP <= 1, "a number from 0 to 1");
  expect(
    "repetition penalty",
    penalty,
    isNumber(penalty) && penalty > 0,
    "a finite number above 0",
  );
  expect("seed", seed, seed === null || isCount(seed), "an integer, 0 or more, or none");
  return sampling;
}

/**
 * Return a function that chooses the next token of one sequence from its logits (V), and remembers
 * it.
 * @param {Sampling} sampling
 * @param {Iterable<number>} said  the tokens of the sequence so far
 */
export function sampler(sampling, said) {
  checkSampling(sampling);
  const seen = new Set(said);
  const random = sampling.seed === null ? Math.random : randomNumbers(sampling.seed);
  return (/** @type {Float32Array} */ logits) => {
    const scores = penalized(logits, seen, sampling.penalty);
    const token =
      sampling.temperature === 0 ? argmax(scores) : draw(weights(scores, sampling), random());
    seen.add(token);
    return token;
  };
}

/** Return the index of the largest value, the lowest among equals. @param {Float64Array} values */
export const argmax = (values) =>
  values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/**
 * Return logits in float64 with the repetition penalty on tokens that were seen.
 * @param {Float32Array} logits  (V)
 * @param {Set<number>} seen
 * @param {number} penalty
 */
export function penalized(logits, seen, penalty) {
  const scores = new Float64Array(logits);
  // NaN where there is one.
  const largest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
  expect(
    "logits: the largest",
    largest,
    Number.isFinite(largest),
    "a finite number; run Verify on the package",
  );
  if (penalty === 1) return scores;
  for (const id of seen) {
    if (scores[id] === -Infinity) continue;
    const score = scores[id] > 0 ? scores[id] / penalty : scores[id] * penalty;
    // Beyond float64 the difference of two scores would have no value.
    scores[id] = Math.min(Math.max(score, -Number.MAX_VALUE), Number.MAX_VALUE);
  }
  return scores;
}

/**
 * Return how probable each token is relative to the most probable one, 0 for those left out.
 * @param {Float64Array} scores  (V)
 * @param {Sampling} sampling
 */
export function weights(scores, { temperature, topK, topP, minP }) {
  const largest = scores[argmax(scores)];
  // The difference comes first: the greatest is 0 whatever the temperature, and nothing overflows.
  const exponents = scores.map((score) => (score - largest) / temperature);
  const least =
    topK > 0 && topK < exponents.length ? exponents.toSorted()[exponents.length - topK] : -Infinity;
  const kept = exponents.map((exponent) => (exponent < least ? 0 : Math.exp(exponent)));
  if (topP < 1) leaveNucleus(kept, topP);
  return kept.map((weight) => (weight < minP ? 0 : weight));
}

/**
 * Set to 0 what lies outside of the nucleus: a token is out when it and all less probable ones
 * together have at most 1 - topP. The most probable stays.
 * @param {Float64Array} weights  (V)
 * @param {number} topP
 */
function leaveNucleus(weights, topP) {
  const rising = [...weights.keys()]
    .filter((id) => weights[id] > 0)
    .sort((a, b) => weights[a] - weights[b]);
  let room = (1 - topP) * weights.reduce((sum, weight) => sum + weight, 0);
  for (const id of rising.slice(0, -1)) {
    room -= weights[id];
    if (room < 0) return;
    weights[id] = 0;
  }
}

/**
 * Return the token at which the weights, added up, pass a fraction of their sum.
 * @param {Float64Array} weights
 * @param {number} fraction  from 0 to below 1
 */
function draw(weights, fraction) {
  let rest = fraction * weights.reduce((sum, weight) => sum + weight, 0);
  const token = weights.findIndex((weight) => {
    rest -= weight;
    return rest < 0;
  });
  // Rounding may leave a rest.
  return token >= 0 ? token : weights.findLastIndex((weight) => weight > 0);
}

/**
 * Return a generator of numbers from 0 to below 1: a counter, its bits mixed.
 * @param {number} seed
 */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    const again = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((again ^ (again >>> 16)) >>> 0) / 2 ** 32;
  };
}
