import assert from "node:assert/strict";
import { test } from "node:test";
import { TextStream } from "../public/text.mjs";

/** A tokenizer with one token a byte. */
const decode = (/** @type {number[]} */ ids) => new TextDecoder().decode(Uint8Array.from(ids));
const stream = (/** @type {Iterable<number>} */ bytes) => {
  const text = new TextStream(decode);
  const pieces = Array.from(bytes, (byte) => text.push(byte));
  return { pieces, rest: text.finish() };
};

test("characters come whole, when their last byte has", () => {
  const { pieces, rest } = stream(new TextEncoder().encode("aé日🙂!"));
  assert.deepEqual(pieces, ["a", "", "é", "", "", "日", "", "", "", "🙂", "!"]);
  assert.equal(rest, "");
});

test("what never completes comes at the end, as U+FFFD", () => {
  const { pieces, rest } = stream([97, 0xf0, 0x9f, 0x99]);
  assert.deepEqual(pieces, ["a", "", "", ""]);
  assert.equal(rest, "\ufffd");
});

test("bytes that are no UTF-8 do not hold back what follows", () => {
  const { pieces, rest } = stream([0xff, 98, 99]);
  assert.deepEqual(pieces, ["", "\ufffdb", "c"]);
  assert.equal(rest, "");
});
