// Text of tokens as they come: what a stream gives is what decoding everything at once gives, for
// constant work a token.
import assert from "node:assert/strict";
import { test } from "node:test";
import { TextStream } from "gptoss-node";

const SPECIAL = 256; // and above: tokens that show nothing
// Ids decoded for one token: a few windows of a context and what is pending, 8 tokens each.
const MOST_DECODED = 120;

/** A byte-level tokenizer whose tokens are single bytes; it counts the ids that it decodes. */
class Bytes {
  decoded = 0;

  decode(ids) {
    this.decoded += ids.length;
    return new TextDecoder().decode(Uint8Array.from(ids.filter((id) => id < SPECIAL)));
  }
}

async function streamed(ids, stops = [], decoder = new Bytes()) {
  const stream = new TextStream(decoder, stops);
  const pieces = [];
  for (const id of ids) pieces.push(await stream.push(id));
  pieces.push(await stream.finish());
  return { text: pieces.join(""), pieces, stream, decoded: decoder.decoded };
}

function seeded(seed) {
  let state = seed;
  return (below) => (state = (state * 48271) % 2147483647) % below;
}

test("characters are given whole, as soon as they are", async () => {
  const ids = [...new TextEncoder().encode("aé€😀b")];
  const { pieces, text } = await streamed(ids);
  assert.deepEqual(pieces, ["a", "", "é", "", "", "€", "", "", "", "😀", "b", ""]);
  assert.equal(text, "aé€😀b");
});

test("any bytes give what decoding them at once gives", async () => {
  const random = seeded(3);
  const characters = ["a", "é", "€", "😀", "\ufffd"];
  const parts = characters.map((text) => [...new TextEncoder().encode(text)]);
  parts.push(
    [SPECIAL],
    [SPECIAL, SPECIAL + 1],
    [0x80],
    [0xe2, 0x82],
    [0xf0],
    [0xf0, 0x9f, 0x98],
    [0xff],
    [0xe2],
  );
  for (let round = 0; round < 400; ++round) {
    const ids = Array.from({ length: random(40) }, () => parts[random(parts.length)]).flat();
    const { text } = await streamed(ids);
    assert.equal(text, new Bytes().decode(ids), `${ids}`);
  }
});

test("the work for a token does not grow with the text, whatever the tokens show", async () => {
  const random = seeded(5);
  for (const [name, ids] of [
    ["letters", (i) => 97 + (i % 26)],
    ["tokens that show nothing", () => SPECIAL],
    ["bytes that no character completes", () => 0x80],
    ["beginnings of characters", () => 0xf0],
    ["one beginning, then nothing to see", (i) => (i === 0 ? 0xe2 : SPECIAL)],
    ["a letter, then nothing to see", (i) => (i === 0 ? 97 : SPECIAL)],
    ["any bytes", () => random(258)],
  ]) {
    const decoder = new Bytes();
    const stream = new TextStream(decoder);
    for (let i = 0; i < 3000; ++i) {
      const before = decoder.decoded;
      await stream.push(ids(i));
      assert.ok(
        decoder.decoded - before <= MOST_DECODED,
        `${name}: ${decoder.decoded - before} ids for token ${i}`,
      );
    }
  }
});

test("a stop ends the text before it, also across tokens, and half of one does not", async () => {
  for (const [said, stops, text] of [
    ["one two three", ["two"], "one "],
    ["one twin", ["two"], "one twin"],
    ["one tw", ["two"], "one tw"],
    ["aab", ["ab"], "a"],
    ["abcd", ["cd", "bc"], "a"],
    ["€uro", ["ur"], "€"],
  ]) {
    const found = await streamed([...new TextEncoder().encode(said)], stops);
    assert.deepEqual([found.text, found.stream.stopped], [text, text !== said]);
  }
});
