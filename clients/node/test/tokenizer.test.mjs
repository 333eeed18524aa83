// Tokenizers of strangers: refused in one line, given up in time.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Tokenizer } from "gptoss-node";
import { copied, PACKAGE, refused, rewrite, short } from "./support.mjs";

test("a text comes back, special tokens do not", async (t) => {
  const tokenizer = await Tokenizer.open(PACKAGE);
  t.after(() => tokenizer.close());
  const ids = await tokenizer.encode(short.text);
  assert.deepEqual(ids, short.token_ids);
  const [special] = tokenizer.specialTokens.values();
  assert.equal(await tokenizer.decode([special, ...ids, special]), short.text);
  assert.equal(await tokenizer.decode([]), "");
  assert.ok(tokenizer.longestToken >= 3);
});

test("a pattern that takes forever is given up, and the next call gets a new thread", async (t) => {
  const folder = copied(t);
  rewrite(folder, "tokenizer.json", (tokenizer) => {
    const pattern = { Regex: "(a+)+$" };
    tokenizer.pre_tokenizer = { type: "Split", pattern, behavior: "Isolated", invert: false };
  });
  const tokenizer = await Tokenizer.open(folder, { seconds: 1 });
  t.after(() => tokenizer.close());
  await refused(tokenizer.encode(`${"a".repeat(40)}b`), /no answer to encode in 1 seconds/);
  assert.equal(typeof (await tokenizer.decode([5])), "string");
});

test("a tokenizer that is none is refused", async (t) => {
  for (const text of [
    "[]",
    "{}",
    '{"model": null}',
    '{"model": {"type": "BPE"}}',
    "[".repeat(1e5),
    '{"model": {"type": 5}}',
  ]) {
    const folder = copied(t);
    writeFileSync(join(folder, "tokenizer.json"), text);
    await refused(Tokenizer.open(folder), /tokenizer/);
  }
});
