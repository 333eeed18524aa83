// Sampling: each filter against its definition, draws against probabilities, nonsense refused.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { GptossError, Sampler } from "gptoss-node";
import { restrict } from "../dist/sampling.js";

const VOCAB = 3000;
const TABLE = new URL("../../../tests/clients/sampler_cases.json", import.meta.url);
const EXACT = 1e-9; // what the table asks for

/** Returns a function of seeded random numbers, 0 to 1. */
function seeded(seed) {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

function randomLogits(random, spread, size = VOCAB) {
  return Float32Array.from({ length: size }, () => spread * (random() + random() + random() - 1.5));
}

const ALL = { topK: 0, topP: 1, minP: 0 };

for (const { name, logits, seen, settings, expected } of JSON.parse(readFileSync(TABLE)).cases)
  test(`the table of all clients: ${name}`, () => {
    const {
      temperature,
      top_k: topK,
      top_p: topP,
      min_p: minP,
      repetition_penalty: repetitionPenalty,
    } = settings;
    const sampler = new Sampler(
      { temperature, topK, topP, minP, repetitionPenalty, seed: 1 },
      seen,
    );
    const row = Float32Array.from(logits, (logit) =>
      Number(String(logit).replace("inf", "Infinity")),
    );
    if (expected.error) {
      assert.throws(() => sampler.choose(row), GptossError);
      return;
    }
    const { token, probabilities = row.map((_, i) => (i === token ? 1 : 0)) } = expected;
    const found = sampler.probabilities(row);
    for (const [i, probability] of probabilities.entries())
      assert.ok(
        Math.abs(found[i] - probability) <= EXACT,
        `token ${i}: ${found[i]}, expected ${probability}`,
      );
    const chosen = sampler.choose(row);
    assert.ok(probabilities[chosen] > 0, `drew ${chosen}`);
  });

/**
 * Returns which tokens the published definitions keep, by sorting everything: top-k, then top-p,
 * then min-p.
 */
function kept(logits, { temperature = 1, topK = 0, topP = 1, minP = 0 }) {
  const scores = Array.from(logits, (logit) => logit / temperature);
  let tokens = scores.map((_, token) => token).sort((a, b) => scores[b] - scores[a]);
  const top = scores[tokens[0]];
  if (topK > 0)
    tokens = tokens.filter(
      (token) => scores[token] >= scores[tokens[Math.min(topK, tokens.length) - 1]],
    );
  const total = tokens.reduce((sum, token) => sum + Math.exp(scores[token] - top), 0);
  let before = 0;
  if (topP < 1)
    tokens = tokens.filter((token) => {
      const isIn = before < topP * total;
      before += Math.exp(scores[token] - top);
      return isIn;
    });
  return new Set(tokens.filter((token) => Math.exp(scores[token] - top) >= minP));
}

test("top-k, top-p and min-p keep what their definitions keep", () => {
  const random = seeded(7);
  for (let round = 0; round < 150; ++round) {
    const settings = {
      temperature: 0.1 + 3 * random(),
      topK: random() < 0.4 ? 0 : Math.ceil(random() ** 3 * 2 * VOCAB),
      topP: random() < 0.3 ? 1 : 0.01 + 0.98 * random(),
      minP: random() < 0.4 ? 0 : random() ** 4,
    };
    const logits = randomLogits(random, 1 + 20 * random());
    const scores = restrict(Float64Array.from(logits), settings);
    const expected = kept(logits, settings);
    const differing = [...scores.keys()].filter(
      (token) => scores[token] > -Infinity !== expected.has(token),
    );
    // One on the very edge of top-p or min-p may fall either way, by rounding.
    assert.ok(differing.length <= 1, `${JSON.stringify(settings)}: ${differing}`);
    const top = Math.max(...logits);
    for (const token of expected)
      if (scores[token] > -Infinity)
        assert.equal(scores[token], (logits[token] - top) / settings.temperature);
  }
});

test("what ties with the last of top-k stays", () => {
  const scores = restrict(Float64Array.of(1, 3, 2, 2, 0), { ...ALL, temperature: 1, topK: 2 });
  assert.deepEqual([...scores].map(Number.isFinite), [false, true, true, true, false]);
});

test("greedy takes the lowest index among equals", () => {
  assert.equal(new Sampler({}, []).choose(Float32Array.of(1, 5, 5, 2)), 1);
});

test("the repetition penalty divides positive and multiplies negative logits", () => {
  const sampler = new Sampler({ repetitionPenalty: 1.5 }, []);
  const logits = Float32Array.of(1, 4, 3.9);
  // 4 wins once; 4 / 1.5 loses to 3.9; then both are penalized.
  assert.deepEqual(
    [1, 2, 3].map(() => sampler.choose(logits)),
    [1, 2, 1],
  );
  assert.equal(new Sampler({ repetitionPenalty: 2 }, [0]).choose(Float32Array.of(-1, -1.5)), 1);
});

test("draws follow the probabilities that are left", () => {
  const logits = Float32Array.from([0.5, 0.3, 0.15, 0.05], Math.log);
  const sampler = new Sampler({ temperature: 1, topK: 3, seed: 1 }, []);
  const counts = [0, 0, 0, 0];
  for (let draw = 0; draw < 4000; ++draw) counts[sampler.choose(logits)] += 1;
  for (const [token, share] of [0.5, 0.3, 0.15].entries())
    assert.ok(Math.abs(counts[token] / 4000 - share / 0.95) < 0.03, `${counts}`);
  assert.equal(counts[3], 0);
});

test("a seed repeats its draws, another one does not, and none is new each time", () => {
  const logits = new Float32Array(VOCAB);
  const draws = (seed) => {
    const sampler = new Sampler(
      seed === undefined ? { temperature: 1 } : { temperature: 1, seed },
      [],
    );
    return Array.from({ length: 8 }, () => sampler.choose(logits)).join();
  };
  assert.equal(draws(3), draws(3));
  assert.notEqual(draws(3), draws(4));
  assert.notEqual(draws(), draws());
});

test("logits that are not finite are refused", () => {
  for (const bad of [NaN, Infinity])
    assert.throws(
      () => new Sampler({}, []).choose(Float32Array.of(0, bad, 1)),
      /expected a finite number/,
    );
});

test("settings out of range are named", () => {
  for (const [name, setting] of [
    ["temperature", { temperature: -1 }],
    ["temperature", { temperature: NaN }],
    ["top-k", { topK: -1 }],
    ["top-k", { topK: 1.5 }],
    ["top-p", { topP: 0 }],
    ["top-p", { topP: 1.1 }],
    ["min-p", { minP: -0.1 }],
    ["repetition-penalty", { repetitionPenalty: 0 }],
    ["seed", { seed: -1 }],
    ["temperature", { temperature: "0.5" }],
    ["temperature", { temperature: null }],
    ["top-k", { topK: "3" }],
    ["temperature", { temperature: 1n }],
    ["top-p", { topP: [0.5] }],
    ["min-p", { minP: {} }],
    ["seed", { seed: 2 ** 53 }],
    ["repetition-penalty", { repetitionPenalty: Infinity }],
    ["stop tokens", { stopTokens: 3 }],
    ["stop tokens: an id", { stopTokens: [1.5] }],
    ["sampling: its key", { topk: 3 }],
    ["sampling", null],
    ["sampling", 3],
  ])
    assert.throws(() => new Sampler(setting, []), new RegExp(`^Error: ${name}: found `), name);
});
