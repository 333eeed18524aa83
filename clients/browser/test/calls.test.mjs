import assert from "node:assert/strict";
import { test } from "node:test";
import { callEnds, slots } from "../public/calls.mjs";

const full = { window: 0, sink_tokens: 0 };
const ring = { window: 128, sink_tokens: 0 };
const keeping = { window: 128, sink_tokens: 100 };

test("full layers hold the capacity, window layers what their ring needs", () => {
  assert.equal(slots("portable", full, 1000), 1000);
  assert.equal(slots("portable", ring, 5000), 128 + 512 - 1);
  assert.equal(slots("portable", keeping, 5000), 128 + 512 - 1);
  assert.equal(slots("portable", ring, 100), 100);
});

test("a ring has a slot beside the tokens that it keeps", () => {
  assert.equal(slots("portable", keeping, 101), 101);
  assert.equal(slots("portable", keeping, 100), 101);
  assert.equal(slots("portable", keeping, 1), 101);
});

test("window layers of target ort hold the window, however small the capacity", () => {
  assert.equal(slots("ort", full, 1000), 1000);
  assert.equal(slots("ort", ring, 5000), 128);
  assert.equal(slots("ort", ring, 100), 128);
});

test("calls end with their chunk; those of target ort at wanted positions too", () => {
  assert.deepEqual(callEnds("portable", 1, [0]), [1]);
  assert.deepEqual(callEnds("portable", 1200, [3, 1199]), [512, 1024, 1200]);
  assert.deepEqual(callEnds("ort", 1200, [3, 600, 1199]), [4, 516, 601, 1113, 1200]);
  assert.deepEqual(callEnds("ort", 3, [0, 1, 2]), [1, 2, 3]);
});
