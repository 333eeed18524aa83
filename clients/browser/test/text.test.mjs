import assert from "node:assert/strict";
import { test } from "node:test";
import { textStream } from "../public/text.mjs";

/** A tokenizer with one token a byte. */
const decode = (/** @type {number[]} */ ids) => new TextDecoder().decode(Uint8Array.from(ids));
const pieces = (/** @type {Uint8Array} */ bytes) => {
  const push = textStream(decode);
  return Array.from(bytes, (byte, i) => push(byte, i === bytes.length - 1));
};

test("characters come whole, when their last byte has", () => {
  const expected = ["a", "", "é", "", "", "日", "", "", "", "🙂", "!"];
  assert.deepEqual(pieces(new TextEncoder().encode("aé日🙂!")), expected);
});

test("what never completes comes at the end, as U+FFFD", () => {
  assert.deepEqual(pieces(Uint8Array.of(97, 0xf0, 0x9f, 0x99)), ["a", "", "", "\ufffd"]);
});

test("bytes that are no UTF-8 do not hold back what follows", () => {
  assert.deepEqual(pieces(Uint8Array.of(0xff, 98, 99)), ["", "\ufffdb", "c"]);
});
