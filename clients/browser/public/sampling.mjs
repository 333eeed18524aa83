/** Sampling: how the next token is chosen from the logits of the vocabulary, V. The steps and their order are those of
 * the Python session: repetition penalty, temperature, top-k, top-p, min-p. */
import { expect } from "./package.mjs";

/**
 * @typedef {object} Sampling
 * @property {number} temperature  0 takes the most probable token; else logits are divided by it
 * @property {number} topK  keep the k largest logits (and what ties with the last); 0 keeps all
 * @property {number} topP  keep the fewest most probable tokens whose probabilities reach this sum; 1 keeps all
 * @property {number} minP  keep tokens at least this fraction as probable as the most probable one; 0 keeps all
 * @property {number} penalty  of repetition: divides positive, multiplies negative logits of tokens seen; 1 is none
 * @property {number | null} seed  of the random numbers; null draws fresh ones
 */

/** @type {Sampling} */
export const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, penalty: 1, seed: null };

/** Return a function that chooses the tokens of one sequence, remembering them. It takes the logits (V), overwritten.
 * @param {Sampling} sampling @param {number[]} prompt */
export function sampler(sampling, prompt) {
  const { temperature, topK, topP, minP, penalty, seed } = sampling;
  const count = (/** @type {number} */ value) => Number.isInteger(value) && value >= 0;
  expect("temperature", temperature, temperature >= 0 && temperature < Infinity, "a finite number, 0 or more");
  expect("top-k", topK, count(topK), "an integer, 0 (off) or more");
  expect("top-p", topP, topP > 0 && topP <= 1, "above 0, at most 1");
  expect("min-p", minP, minP >= 0 && minP <= 1, "0 to 1");
  expect("repetition penalty", penalty, penalty > 0 && penalty < Infinity, "a finite number above 0");
  expect("seed", seed, seed === null || count(seed), "an integer, 0 or more, or none");
  const seen = new Set(prompt);
  const random = seed === null ? Math.random : randomNumbers(seed);
  return (/** @type {Float32Array} */ logits) => {
    const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity); // NaN where there is one
    expect("logits: the largest", largest, Number.isFinite(largest), "a finite number; run Verify on the package");
    for (const id of seen) logits[id] *= logits[id] < 0 ? penalty : 1 / penalty;
    const token = temperature === 0 ? argmax(logits) : draw(restrict(logits, sampling), random());
    seen.add(token);
    return token;
  };
}

/** Return the index of the largest value, the lowest among equals. @param {Float32Array} values */
export const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/** Return how probable each token is relative to the most probable one, 0 for those left out.
 * @param {Float32Array} logits  (V) @param {Sampling} sampling */
export function restrict(logits, { temperature, topK, topP, minP }) {
  const scores = logits.map((logit) => logit / temperature);
  const largest = scores[argmax(scores)];
  const least = topK > 0 && topK < scores.length ? scores.toSorted()[scores.length - topK] : -Infinity;
  const weights = Float64Array.from(scores, (score) => (score < least ? 0 : Math.exp(score - largest)));
  if (topP < 1) {
    // A token is out when it and all less probable ones together have at most 1 - topP; the most probable stays.
    const rising = [...weights.keys()].filter((id) => weights[id] > 0).sort((a, b) => weights[a] - weights[b]);
    let room = (1 - topP) * weights.reduce((sum, weight) => sum + weight, 0);
    for (const id of rising.slice(0, -1)) {
      room -= weights[id];
      if (room >= 0) weights[id] = 0;
    }
  }
  return weights.map((weight) => (weight < minP ? 0 : weight));
}

/** Return the token at which the weights, added up, pass a fraction of their sum.
 * @param {Float64Array} weights @param {number} fraction  from 0 to below 1 */
function draw(weights, fraction) {
  let rest = fraction * weights.reduce((sum, weight) => sum + weight, 0);
  const token = weights.findIndex((weight) => (rest -= weight) < 0);
  return token >= 0 ? token : weights.findLastIndex((weight) => weight > 0); // rounding may leave a rest
}

/** Return a generator of numbers from 0 to below 1: a counter, its bits mixed. @param {number} seed */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    const again = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((again ^ (again >>> 16)) >>> 0) / 2 ** 32;
  };
}
