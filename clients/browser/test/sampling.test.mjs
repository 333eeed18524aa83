import assert from "node:assert/strict";
import { test } from "node:test";
import { argmax, GREEDY, restrict, sampler } from "../public/sampling.mjs";

const logits = (/** @type {number[]} */ ...values) => Float32Array.from(values);
const at = (/** @type {object} */ settings) => ({ ...GREEDY, temperature: 1, seed: 1, ...settings });
/** Logits whose softmax is these probabilities. */
const ofProbabilities = (/** @type {number[]} */ ...p) => logits(...p.map(Math.log));
/** Which tokens may be drawn. */
const kept = (/** @type {Float32Array} */ values, /** @type {object} */ settings) =>
  [...restrict(values, at(settings))].flatMap((weight, id) => (weight > 0 ? [id] : []));
const draws = (/** @type {number} */ seed) => {
  const choose = sampler(at({ seed }), []);
  return Array.from({ length: 8000 }, () => choose(ofProbabilities(0.1, 0.6, 0.3)));
};

test("greedy takes the lowest index among equals", () => {
  assert.equal(argmax(logits(1, 3, 3, 2)), 1);
  assert.equal(sampler(GREEDY, [])(logits(-1, -3, -1)), 0);
});

test("top-k keeps the largest and what ties with the last", () => {
  assert.deepEqual(kept(logits(1, 4, 3, 3, -10), { topK: 2 }), [1, 2, 3]);
  assert.deepEqual(kept(logits(10, 9, -8, 100), { topK: 2 }), [0, 3]);
  assert.deepEqual(kept(logits(1, 2), { topK: 5 }), [0, 1]);
});

test("top-p keeps the fewest most probable tokens that reach the sum", () => {
  const values = ofProbabilities(0.1, 0.5, 0.15, 0.25);
  assert.deepEqual(kept(values, { topP: 0.74 }), [1, 3]);
  assert.deepEqual(kept(values, { topP: 0.76 }), [1, 2, 3]);
  assert.deepEqual(kept(values, { topP: 0.01 }), [1]);
  assert.equal(kept(logits(0, 0, 0, 0), { topP: 0.49 }).length, 2);
});

test("min-p is relative to the most probable token", () => {
  const values = ofProbabilities(0.1, 0.5, 0.15, 0.25);
  assert.deepEqual(kept(values, { minP: 0.29 }), [1, 2, 3]);
  assert.deepEqual(kept(values, { minP: 0.31 }), [1, 3]);
});

test("top-k comes before top-p, which comes before min-p", () => {
  // Of the two that top-k keeps, the first has 0.5 / 0.75 of the probability, which top-p then judges.
  assert.deepEqual(kept(ofProbabilities(0.5, 0.25, 0.25 - 1e-4, 1e-4), { topK: 2, topP: 0.66 }), [0]);
  assert.deepEqual(kept(ofProbabilities(0.5, 0.25, 0.25 - 1e-4, 1e-4), { topP: 0.66 }), [0, 1]);
});

test("temperature divides the logits", () => {
  const [first, second] = restrict(logits(0, 2), at({ temperature: 2 }));
  assert.ok(Math.abs(first / second - Math.exp(-1)) < 1e-6);
});

test("the repetition penalty divides positive and multiplies negative logits of what was seen", () => {
  const choose = sampler({ ...GREEDY, penalty: 2 }, [0]);
  assert.equal(choose(logits(3, 2, -1)), 1); // 1.5, 2, -1
  assert.equal(choose(logits(-3, 2, 1.5)), 2); // -6, 1, 1.5: token 1 is seen by now
});

test("draws follow the probabilities, and the seed", () => {
  const counts = [0, 0, 0];
  for (const token of draws(7)) counts[token]++;
  // Four standard deviations of a binomial share of 8000 draws are at most 0.022.
  [0.1, 0.6, 0.3].forEach((p, id) => assert.ok(Math.abs(counts[id] / 8000 - p) < 0.022, `token ${id}: ${counts[id]}`));
  assert.deepEqual(draws(7), draws(7));
  assert.notDeepEqual(draws(7), draws(8));
});

test("settings out of range and logits that are no numbers are refused by name", () => {
  const wrong = { temperature: -1, topK: 1.5, topP: 0, minP: 2, penalty: 0, seed: -1 };
  for (const [name, value] of Object.entries(wrong))
    assert.throws(() => sampler({ ...GREEDY, [name]: value }, []), new RegExp(`found ${value}, expected`), name);
  assert.throws(() => sampler(GREEDY, [])(logits(1, NaN, 2)), /logits.*NaN/);
  assert.throws(() => sampler(GREEDY, [])(logits(1, Infinity)), /logits.*Infinity/);
});
