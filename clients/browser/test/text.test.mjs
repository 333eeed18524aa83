import assert from "node:assert/strict";
import { test } from "node:test";
import { textStream } from "../public/text.mjs";

const NOTHING = 256; // a token without text, as a special one is

/** A tokenizer with one token a byte, which counts the tokens it is given. */
function byteDecoder() {
  const work = { tokens: 0 };
  const decode = (/** @type {number[]} */ ids) => {
    work.tokens += ids.length;
    return new TextDecoder().decode(Uint8Array.from(ids.filter((id) => id !== NOTHING)));
  };
  return { decode, work };
}

const pieces = (/** @type {Iterable<number>} */ ids) => {
  const push = textStream(byteDecoder().decode);
  const all = [...ids];
  return all.map((id, i) => push(id, i === all.length - 1));
};

test("characters come whole, when their last byte has", () => {
  const expected = ["a", "", "é", "", "", "日", "", "", "", "🙂", "!"];
  assert.deepEqual(pieces(new TextEncoder().encode("aé日🙂!")), expected);
});

test("what never completes comes at the end, as U+FFFD", () => {
  assert.deepEqual(pieces([97, 0xf0, 0x9f, 0x99]), ["a", "", "", "\ufffd"]);
});

test("bytes that are no UTF-8 do not hold back what follows", () => {
  assert.deepEqual(pieces([0xff, 98, 99]), ["", "\ufffdb", "c"]);
});

test("tokens without text do not part a character, however many they are", () => {
  const [first, second] = new TextEncoder().encode("é");
  const ids = [first, ...Array(50).fill(NOTHING), second, NOTHING];
  assert.deepEqual(pieces(ids), [...Array(51).fill(""), "é", ""]);
});

test("the pieces together are what all tokens decode to", () => {
  let state = 5;
  for (let round = 0; round < 2000; round++) {
    const ids = Array.from({ length: 1 + (round % 40) }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const kinds = [0x61, 0x80, 0xbf, 0xc3, 0xe3, 0xf0, 0x9f, 0x99, 0xff, NOTHING, 0xef, 0xbb];
      return kinds[(state >>> 16) % kinds.length];
    });
    // TextDecoder leaves out a byte order mark where what it is given begins: here, in a part.
    if (String(ids.filter((id) => id !== NOTHING)).includes("239,187,191")) continue;
    assert.equal(pieces(ids).join(""), byteDecoder().decode(ids), String(ids));
  }
});

test("a token costs the same work at the end of a long text as at its beginning", () => {
  const streams = {
    "without text": () => NOTHING,
    "that never complete": () => 0x80,
    "that begin and never complete": (/** @type {number} */ i) => (i % 2 ? 0xf0 : 0x9f),
    "of characters": (/** @type {number} */ i) => [0xf0, 0x9f, 0x99, 0x82][i % 4],
  };
  for (const [what, tokenAt] of Object.entries(streams)) {
    const { decode, work } = byteDecoder();
    const push = textStream(decode);
    let most = 0;
    for (let i = 0; i < 8000; i++) {
      const before = work.tokens;
      push(tokenAt(i), false);
      most = Math.max(most, work.tokens - before);
    }
    assert.ok(most <= 8, `tokens ${what}: ${most} were decoded for one`);
  }
});

test("tokens that each end inside a character show what is certain", () => {
  const decode = (/** @type {number[]} */ ids) =>
    new TextDecoder().decode(Uint8Array.from(ids.flatMap(() => [0x61, 0xf0])));
  const push = textStream(decode);
  const texts = Array.from({ length: 100 }, (_, i) => push(i, i === 99));
  assert.equal(texts.join(""), "a\ufffd".repeat(100));
  assert.equal(texts[50], "\ufffda");
});
