import assert from "node:assert/strict";
import { test } from "node:test";
import { checkGolden } from "../public/golden-file.mjs";
import { mutatedJson, randomIntegers } from "./mutations.mjs";
import { goldenOf } from "./small-package.mjs";

/** @type {[(golden: any) => void, RegExp][]} */
const REFUSED = [
  [(golden) => (golden.format = 1), /^golden.json: format: found 1/],
  [(golden) => (golden.format_version = 2), /format_version: found 2, expected 1/],
  [(golden) => (golden.cases = []), /cases: found a list of 0, expected a list of 1 to 1000/],
  [(golden) => (golden.cases = { length: 1 }), /cases: found an object/],
  [(golden) => (golden.cases[0] = null), /cases\[0\].name: found nothing/],
  [(golden) => (golden.cases[0].name = {}), /cases\[0\].name: found an object/],
  [(golden) => (golden.cases[0].token_ids = []), /token_ids: found a list of 0/],
  [
    (golden) => (golden.cases[0].token_ids[1] = 16),
    /token_ids\[1\]: found 16, expected token ids, 0 to 15/,
  ],
  [(golden) => (golden.cases[0].greedy = []), /greedy: found a list of 0/],
  [(golden) => (golden.cases[0].positions = []), /positions: found a list of 0/],
  [
    (golden) => (golden.cases[0].positions = [0, 3]),
    /positions\[1\]: found 3, expected rising places/,
  ],
  [
    (golden) => (golden.cases[0].positions = [2, 0]),
    /positions\[1\]: found 0, expected rising places/,
  ],
  [(golden) => (golden.cases[0].positions = [-1, 0]), /positions\[0\]: found -1/],
  [
    (golden) => golden.cases[0].top_indices.pop(),
    /top_indices: found a list of 1, expected a list of 2 lists/,
  ],
  [(golden) => (golden.cases[0].top_indices[0] = [99]), /top_indices\[0\]\[0\]: found 99/],
  [
    (golden) => golden.cases[0].top_logits[1].pop(),
    /top_logits\[1\]: found a list of 1, expected a list of 2 numbers/,
  ],
  [
    (golden) => (golden.cases[0].top_logits[1][0] = "3"),
    /top_logits\[1\]\[0\]: found 3, expected numbers/,
  ],
  [
    (golden) => golden.cases[0].sampled_logits[0].push(1),
    /sampled_logits\[0\]: found a list of 3, expected a list of 2/,
  ],
  [
    (golden) => (golden.cases[0].logsumexp[1] = null),
    /logsumexp\[1\]: found nothing, expected numbers/,
  ],
  [(golden) => (golden.sampled_indices[0] = 1e300), /sampled_indices\[0\]: found 1e\+300/],
];

test("golden vectors that fit are taken as they are", () => {
  const golden = goldenOf();
  assert.equal(checkGolden(golden, 16), golden);
});

for (const [spoil, message] of REFUSED)
  test(`refused in one line: ${message.source}`, () => {
    const golden = goldenOf();
    spoil(golden);
    assert.throws(() => checkGolden(golden, 16), { name: "ClientError", message });
  });

test("what is no object is refused", () => {
  for (const golden of [null, [], 7, "x", undefined])
    assert.throws(() => checkGolden(golden, 16), {
      name: "ClientError",
      message: /^golden.json: format: found nothing/,
    });
});

test("mutated golden vectors are taken, or refused with our error", () => {
  const random = randomIntegers(4);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    try {
      checkGolden(mutatedJson(mutatedJson(goldenOf(), random), random), 16);
    } catch (error) {
      assert.equal(error.name, "ClientError", `${round}: ${error.stack}`);
      assert.doesNotMatch(error.message, /[\x00-\x1f]/);
      refused++;
    }
  }
  assert.ok(refused > 500 && refused < 3000, `${refused} were refused`);
});
