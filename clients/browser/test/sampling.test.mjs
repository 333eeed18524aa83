import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { argmax, GREEDY, penalized, sampler, weights } from "../public/sampling.mjs";

/** @typedef {import("../public/sampling.mjs").Sampling} Sampling */

const TABLE = JSON.parse(
  readFileSync(new URL("../../../tests/clients/sampler_cases.json", import.meta.url), "utf8"),
);
const TOLERANCE = 1e-9; // of a probability, as the table says
const SPECIAL = new Map([
  ["inf", Infinity],
  ["-inf", -Infinity],
  ["nan", NaN],
]);
const ERROR = { name: "ClientError", message: /^logits: the largest: found / };

const logits = (/** @type {(number | string)[]} */ ...values) =>
  Float32Array.from(values, (value) =>
    typeof value === "string" ? /** @type {number} */ (SPECIAL.get(value)) : value,
  );
/** @param {any} settings  of the table @returns {Sampling} */
const settingsOf = ({
  temperature,
  top_k: topK,
  top_p: topP,
  min_p: minP,
  repetition_penalty: penalty,
}) => ({
  temperature,
  topK,
  topP,
  minP,
  penalty,
  seed: 1,
});
const probabilities = (
  /** @type {Float32Array} */ row,
  /** @type {number[]} */ seen,
  /** @type {Sampling} */ sampling,
) => {
  const kept = weights(penalized(row, new Set(seen), sampling.penalty), sampling);
  const sum = kept.reduce((total, weight) => total + weight, 0);
  return Array.from(kept, (weight) => weight / sum);
};

for (const { name, logits: values, seen, settings, expected } of TABLE.cases)
  test(`table: ${name}`, () => {
    const sampling = settingsOf(settings);
    const row = logits(...values);
    if (expected.error) {
      assert.throws(() => sampler(sampling, seen)(row), ERROR);
    } else if (expected.probabilities) {
      for (const [id, found] of probabilities(row, seen, sampling).entries())
        assert.ok(Math.abs(found - expected.probabilities[id]) <= TOLERANCE, `${id}: ${found}`);
      const drawn = sampler(sampling, seen)(row);
      assert.ok(expected.probabilities[drawn] > 0, `${drawn} was drawn`);
    } else {
      assert.equal(sampler(sampling, seen)(row), expected.token);
    }
    assert.deepEqual(row, logits(...values)); // the logits stay as they are
  });

const draws = (/** @type {number} */ seed) => {
  const choose = sampler({ ...GREEDY, temperature: 1, seed }, []);
  const row = logits(...[0.1, 0.6, 0.3].map(Math.log));
  return Array.from({ length: 8000 }, () => choose(row));
};

test("draws follow the probabilities, and the seed", () => {
  const counts = [0, 0, 0];
  for (const token of draws(7)) counts[token]++;
  for (const [id, p] of [0.1, 0.6, 0.3].entries()) {
    const share = counts[id] / 8000;
    // Four standard deviations of a binomial share.
    assert.ok(Math.abs(share - p) < 0.022, `token ${id}: ${share}`);
  }
  assert.deepEqual(draws(7), draws(7));
  assert.notDeepEqual(draws(7), draws(8));
});

test("what was chosen is seen from then on", () => {
  const choose = sampler({ ...GREEDY, penalty: 1.5 }, []);
  const row = logits(1, 4, 3.9);
  // 4 wins once; 4 / 1.5 loses to 3.9; then both are penalized.
  assert.deepEqual([choose(row), choose(row), choose(row)], [1, 2, 1]);
});

test("greedy takes the lowest index among equals", () => {
  assert.equal(argmax(Float64Array.of(1, 3, 3, 2)), 1);
});

test("settings that are missing, no numbers or out of range are refused by name", () => {
  const names = {
    temperature: "temperature",
    topK: "top-k",
    topP: "top-p",
    minP: "min-p",
    penalty: "repetition penalty",
    seed: "seed",
  };
  const wrong = [
    NaN,
    Infinity,
    -Infinity,
    -1,
    "1",
    "",
    true,
    undefined,
    {},
    [],
    1e400,
    Symbol("x"),
    1n,
  ];
  for (const [key, name] of Object.entries(names)) {
    for (const value of wrong)
      assert.throws(() => sampler({ ...GREEDY, [key]: value }, []), {
        name: "ClientError",
        message: new RegExp(`^${name}: found .*, expected `),
      });
    if (key !== "seed")
      assert.throws(() => sampler({ ...GREEDY, [key]: null }, []), /found nothing, expected/);
  }
  const edges = { topK: 1.5, topP: 0, minP: 1.5, penalty: 0, seed: 2 ** 53 };
  for (const [key, value] of Object.entries(edges))
    assert.throws(() => sampler({ ...GREEDY, [key]: value }, []), { name: "ClientError" }, key);
});
