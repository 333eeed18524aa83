// What is read of manifests, and which sizes of them are refused.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PackageFolder, Session } from "gptoss-node";
import { parseManifest } from "../dist/manifest.js";
import { changed, NATIVE, PACKAGE, short } from "./support.mjs";

const WRITTEN = readFileSync(join(PACKAGE, "manifest.json"), "utf8");
const SIZES = { vocab_size: 2048, longest: 1024 };

/** Returns the demo's manifest, changed by `edit(manifest)`. */
function manifestOf(edit = () => {}) {
  const manifest = JSON.parse(WRITTEN);
  edit(manifest);
  return manifest;
}

/** Makes a manifest one of format 1. */
function makeOld(manifest) {
  manifest.format_version = 1;
  Object.assign(manifest.model, {
    vocab_size: 2048,
    max_position_embeddings: 1024,
    eos_token_id: manifest.eos_tokens,
  });
  const added = ["vocab_size", "longest", "eos_tokens", "rounded", "onnxruntime"];
  for (const key of added) delete manifest[key];
  for (const layer of manifest.cache) delete layer.sink_tokens;
}

test("format 1 is read as format 2, where the model's sizes count for nothing", () => {
  const old = parseManifest(manifestOf(makeOld), "old");
  const found = parseManifest(
    manifestOf(({ model }) => Object.assign(model, { vocab_size: -1, max_position_embeddings: 0 })),
    "new",
  );
  assert.deepEqual(old, found);
  const { vocab_size, longest, cache } = found;
  assert.deepEqual({ vocab_size, longest }, SIZES);
  assert.ok(cache.every(({ sink_tokens }) => sink_tokens === 0));
});

test("a package of format 1 runs", async (t) => {
  const session = await Session.open(changed(t, "manifest.json", makeOld), NATIVE);
  const logits = await session.forward(short.token_ids, session.newCache(20));
  assert.equal(logits.indexOf(Math.max(...logits)), short.greedy[0]);
});

test("a window layer of target portable may keep its first tokens", (t) => {
  const keep = ({ cache }) => Object.assign(cache[0], { window: 32, sink_tokens: 31 });
  const { manifest } = PackageFolder.open(changed(t, "manifest.json", keep));
  assert.equal(manifest.cache[0].sink_tokens, 31);
});

for (const [edit, message] of [
  [(m) => (m.format_version = 0), /format_version: found 0, expected 1 or 2/],
  [(m) => (m.onnxruntime = 1.32), /w: onnxruntime: found 1.32, expected a text/],
  [(m) => (m.onnxruntime = "1.32.0"), /w: onnxruntime: found 1.32.0, expected a version such as/],
  [(m) => (m.onnxruntime = "1.\u06f3"), /w: onnxruntime: found 1.\u06f3, expected a version/],
  [(m) => (m.stage = { first: 0, end: 3, layers: 9 }), /w: found a package of some layers alone/],
  [(m) => delete m.vocab_size, /w: vocab_size: found none/],
  [(m) => (m.vocab_size = 0), /w: vocab_size: found 0, expected an integer from 1 to/],
  [(m) => (m.longest = 2 ** 31), /w: longest: found 2147483648, expected an integer from 1 to/],
  [(m) => delete m.cache[0].sink_tokens, /cache\[0\]: sink_tokens: found none/],
  [(m) => (m.cache[0].sink_tokens = -1), /cache\[0\]: sink_tokens: found -1/],
  [
    (m) => Object.assign(m.cache[0], { window: 0, sink_tokens: 1 }),
    /sink_tokens: found 1, expected an integer from 0 to 0/,
  ],
  [
    (m) => Object.assign(m.cache[0], { window: 32, sink_tokens: 32 }),
    /sink_tokens: found 32, expected an integer from 0 to 31/,
  ],
  [
    (m) => Object.assign(m, { target: "ort" }).cache.forEach((layer) => (layer.sink_tokens = 1)),
    /sink_tokens: found 1, expected an integer from 0 to 0/,
  ],
  [(m) => makeOld(m) || (m.model = null), /w: vocab_size: found none, expected an integer/],
  [(m) => makeOld(m) || (m.model = {}), /w: vocab_size: found none, expected an integer/],
  [(m) => makeOld(m) || (m.cache[0] = null), /cache\[0\]: found none, expected an object/],
  [(m) => makeOld(m) || (m.cache = {}), /w: cache: found object, expected a list/],
  [(m) => makeOld(m) || (m.format_version = 2), /w: vocab_size: found none/],
])
  test(`refused: ${message.source}`, () => {
    assert.throws(() => parseManifest(manifestOf(edit), "w"), { message });
  });
