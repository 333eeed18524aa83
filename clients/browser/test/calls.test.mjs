import assert from "node:assert/strict";
import { test } from "node:test";
import { callEnds, slots } from "../public/calls.mjs";

test("full layers hold the capacity, window layers what their ring needs", () => {
  assert.equal(slots("portable", 0, 1000), 1000);
  assert.equal(slots("portable", 128, 5000), 128 + 512 - 1);
  assert.equal(slots("portable", 128, 100), 100);
});

test("window layers of target ort hold the window, however small the capacity", () => {
  assert.equal(slots("ort", 0, 1000), 1000);
  assert.equal(slots("ort", 128, 5000), 128);
  assert.equal(slots("ort", 128, 100), 128);
});

test("calls end with their chunk; those of target ort at wanted positions too", () => {
  assert.deepEqual(callEnds("portable", 1, [0]), [1]);
  assert.deepEqual(callEnds("portable", 1200, [3, 1199]), [512, 1024, 1200]);
  assert.deepEqual(callEnds("ort", 1200, [3, 600, 1199]), [4, 516, 601, 1113, 1200]);
  assert.deepEqual(callEnds("ort", 3, [0, 1, 2]), [1, 2, 3]);
});
