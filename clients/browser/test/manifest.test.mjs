import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkManifest,
  listedFiles,
  MOST_BYTES,
  stopTokens,
  weightBytes,
} from "../public/manifest.mjs";
import { manifestOf, manifestOfFormat1, WEIGHTS } from "./small-package.mjs";
import { mutatedJson, randomIntegers } from "./mutations.mjs";

const FILE = manifestOf().weights.files[0];
const LAYER = manifestOf().cache[0];
const withFile = (/** @type {object} */ changes, /** @type {object} */ weights = {}) =>
  manifestOf({
    weights: { ...manifestOf().weights, ...weights, files: [{ ...FILE, ...changes }] },
  });
const withLayer = (/** @type {object} */ changes) =>
  manifestOf({ cache: [{ ...LAYER, ...changes }] });

test("a manifest that fits is taken as it is", () => {
  const manifest = manifestOf();
  assert.equal(checkManifest(manifest), manifest);
  assert.equal(weightBytes(manifest), WEIGHTS.file.length);
  const names = listedFiles(manifest)
    .map(({ name }) => name)
    .sort();
  assert.deepEqual(names, [
    "generation_config.json",
    "golden/golden.json",
    "manifest.json",
    "model.onnx",
    "model.safetensors",
    "tokenizer.json",
  ]);
});

test("format 1 is read as format 2, where the model's sizes count for nothing", () => {
  assert.equal("sink_tokens" in manifestOfFormat1().cache[0], false);
  const found = checkManifest(manifestOfFormat1());
  const { vocab_size, longest, eos_tokens, cache } = manifestOf();
  const sizes = [found.vocab_size, found.longest, found.eos_tokens, found.cache];
  assert.deepEqual(sizes, [vocab_size, longest, eos_tokens, cache]);
  const model = { vocab_size: 2 ** 53, max_position_embeddings: "many" };
  assert.equal(checkManifest(manifestOf({ model })).vocab_size, vocab_size);
});

test("a window layer of target portable may keep its first tokens", () => {
  for (const [window, kept] of [
    [0, 0],
    [1, 0],
    [4, 3],
  ]) {
    const manifest = checkManifest(withLayer({ window, sink_tokens: kept }));
    assert.equal(manifest.cache[0].sink_tokens, kept);
  }
});

test("in mode reference, the checkpoint's files lie below the root", () => {
  checkManifest(
    withFile({ name: "sub/model-00001.safetensors" }, { mode: "reference", root: "/checkpoint" }),
  );
});

/** @type {[any, RegExp][]} */
const REFUSED = [
  [null, /^manifest.json: found nothing, expected an object/],
  [[], /^manifest.json: found a list of 0, expected an object/],
  [{}, /format: found nothing, expected gptoss-onnx/],
  [manifestOf({ format_version: 3 }), /format_version: found 3, expected 1 or 2/],
  [manifestOf({ format_version: 0 }), /format_version: found 0, expected 1 or 2/],
  [{ ...manifestOfFormat1(), model: null }, /model: found nothing, expected an object/],
  [{ ...manifestOfFormat1(), model: {} }, /vocab_size: found nothing, expected an integer/],
  [{ ...manifestOfFormat1(), cache: [null] }, /cache\[0\]: found nothing, expected an object/],
  [{ ...manifestOfFormat1(), cache: 7 }, /cache: found 7, expected a list/],
  [{ ...manifestOfFormat1(), format_version: 2 }, /vocab_size: found nothing, expected/],
  [manifestOf({ onnxruntime: 1.32 }), /onnxruntime: found 1.32, expected a version such as 1.32/],
  [manifestOf({ onnxruntime: "1.32.0" }), /onnxruntime: found 1.32.0, expected a version/],
  [manifestOf({ onnxruntime: null }), /onnxruntime: found nothing, expected a version/],
  [manifestOf({ stage: { first: 0 } }), /stage: found an object, expected nothing/],
  [manifestOf({ ops: {} }), /ops: found an object, expected a list/],
  [manifestOf({ target: "cuda" }), /target: found cuda, expected portable or ort/],
  [manifestOf({ target: "\u001b[2J\n" }), /target: found \\u001b\[2J\\u000a, expected/],
  [
    manifestOf({ kv_dtype: "bfloat16" }),
    /kv_dtype: found bfloat16, expected float32 or float16 in a browser/,
  ],
  [manifestOf({ model: [] }), /model: found a list of 0, expected an object/],
  [manifestOf({ vocab_size: -1 }), /json: vocab_size: found -1, expected an integer/],
  [manifestOf({ vocab_size: 2 ** 53 }), /vocab_size: found 9007199254740992/],
  [manifestOf({ vocab_size: "16" }), /vocab_size: found 16, expected an integer/],
  [manifestOf({ longest: 0 }), /longest: found 0, expected an integer, 1 to/],
  [manifestOf({ longest: 2 ** 31 }), /longest: found 2147483648, expected an integer/],
  [manifestOf({ cache: [] }), /cache: found a list of 0, expected a list of 1 to 1024 entries/],
  [manifestOf({ cache: { length: 1 } }), /cache: found an object, expected a list/],
  [manifestOf({ cache: Array(2000).fill(LAYER) }), /cache: found a list of 2000/],
  [
    manifestOf({ cache: [LAYER, LAYER] }),
    /cache\[1\].past_key: found past_key_values.0.key, expected a name of its own/,
  ],
  [withLayer({ kv_heads: -1 }), /cache\[0\].kv_heads: found -1, expected an integer/],
  [withLayer({ kv_heads: 2 ** 53 }), /cache\[0\].kv_heads: found 9007199254740992/],
  [withLayer({ head_dim: 0 }), /cache\[0\].head_dim: found 0/],
  [withLayer({ window: 1.5 }), /cache\[0\].window: found 1.5/],
  [withLayer({ window: -1 }), /cache\[0\].window: found -1/],
  [withLayer({ sink_tokens: undefined }), /cache\[0\].sink_tokens: found nothing/],
  [withLayer({ sink_tokens: -1 }), /cache\[0\].sink_tokens: found -1/],
  [withLayer({ sink_tokens: 1 }), /sink_tokens: found 1, expected an integer, 0 to 0/],
  [withLayer({ window: 4, sink_tokens: 4 }), /sink_tokens: found 4, expected an integer, 0 to 3/],
  [
    { ...withLayer({ window: 4, sink_tokens: 1 }), target: "ort" },
    /sink_tokens: found 1, expected an integer, 0 to 0/,
  ],
  [withLayer({ past_key: "__proto__" }), /cache\[0\].past_key: found __proto__, expected a name/],
  [withLayer({ past_key: "a\0b" }), /cache\[0\].past_key: found a\\u0000b, expected a name/],
  [withLayer({ past_key: 7 }), /cache\[0\].past_key: found 7, expected a name/],
  [manifestOf({ tokenizer_files: {} }), /tokenizer_files: found an object, expected a list/],
  [
    manifestOf({ tokenizer_files: ["tokenizer.json", "tokenizer.json"] }),
    /file names: found tokenizer.json/,
  ],
  [
    manifestOf({ tokenizer_files: ["golden/golden.json"] }),
    /tokenizer_files\[0\]: found golden\/golden.json/,
  ],
  [
    manifestOf({ tokenizer_files: ["generation_config.json"] }),
    /file names: found generation_config.json/,
  ],
  [manifestOf({ weights: null }), /weights: found nothing, expected an object/],
  [withFile({}, { mode: "remote" }), /weights.mode: found remote/],
  [withFile({}, { root: "/" }), /weights.root: found \/, expected nothing in mode copy/],
  [
    withFile({}, { mode: "reference", root: null }),
    /weights.root: found nothing, expected an absolute folder/,
  ],
  [
    withFile({}, { mode: "reference", root: "../x" }),
    /weights.root: found ..\/x, expected an absolute folder/,
  ],
  [
    withFile({}, { mode: "reference", root: "/a\0" }),
    /weights.root: found \/a\\u0000, expected an absolute folder/,
  ],
  [
    withFile({ name: "sub/x" }),
    /weights.files\[0\].name: found sub\/x, expected a plain file name/,
  ],
  [
    withFile({ name: "sub/x", origin: "export" }, { mode: "reference", root: "/a" }),
    /name: found sub\/x/,
  ],
  [
    withFile({ name: "../x" }, { mode: "reference", root: "/a" }),
    /name: found ..\/x, expected a plain/,
  ],
  [
    withFile({ name: "/etc/passwd" }, { mode: "reference", root: "/" }),
    /name: found \/etc\/passwd/,
  ],
  [withFile({ origin: "elsewhere" }), /weights.files\[0\].origin: found elsewhere/],
  [withFile({ size: -1 }), /weights.files\[0\].size: found -1/],
  [withFile({ size: "3" }), /weights.files\[0\].size: found 3, expected an integer/],
  [
    withFile({ size: MOST_BYTES.weights + 1 }),
    /weights in bytes: found 1073741825, expected at most/,
  ],
  [withFile({ header_sha256: "0".repeat(63) }), /header_sha256: found 0000/],
];
for (const name of [
  "",
  ".",
  "..",
  "/etc/passwd",
  "../x",
  "a/b",
  "a\\b",
  "a\0b",
  "\ud800",
  "x".repeat(256),
  7,
  null,
  ["a"],
])
  REFUSED.push([
    manifestOf({ graph: name }),
    /^manifest.json: graph: found .*, expected a plain file name/,
  ]);

for (const [i, [manifest, says]] of REFUSED.entries())
  test(`refused in one line: ${i}: ${says.source}`, () => {
    assert.throws(() => checkManifest(manifest), { name: "ClientError", message: says });
  });

test("a mutated manifest is taken, or refused with our error", () => {
  const random = randomIntegers(1);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const manifest = mutatedJson(mutatedJson(manifestOf(), random), random);
    try {
      checkManifest(manifest);
    } catch (error) {
      assert.equal(error.name, "ClientError", `${round}: ${error.stack}`);
      assert.doesNotMatch(error.message, /[\x00-\x1f]/);
      assert.ok(error.message.length < 400, error.message);
      refused++;
    }
  }
  assert.ok(refused > 500 && refused < 3000, `${refused} were refused`);
});

test("stop tokens are those of the generation config, else the manifest's", () => {
  const named = { eos_tokens: [7] };
  assert.deepEqual(stopTokens({ eos_token_id: [1, 2] }, manifestOf(named)), [1, 2]);
  assert.deepEqual(stopTokens({ eos_token_id: 0 }, manifestOf(named)), [0]);
  assert.deepEqual(stopTokens({ eos_token_id: null }, manifestOf(named)), [7]);
  assert.deepEqual(stopTokens({}, manifestOf(named)), [7]);
  assert.deepEqual(stopTokens({}, manifestOf()), []);
});

test("stop tokens that are no token ids are refused, and it is said where they stand", () => {
  for (const wrong of [-1, 16, 1.5, "7", [1, "2"], [[1]], { 0: 1 }, true]) {
    const inConfig = {
      name: "ClientError",
      message: /^generation_config.json: eos_token_id: found .*, expected token ids, 0 to 15/,
    };
    assert.throws(() => stopTokens({ eos_token_id: wrong }, manifestOf()), inConfig);
    const inManifest = {
      name: "ClientError",
      message: /^manifest.json: eos_tokens: found .*, expected token ids/,
    };
    const manifest = manifestOf({ eos_tokens: wrong });
    assert.throws(() => stopTokens({}, manifest), inManifest);
  }
  for (const config of [null, [], 7, "x"])
    assert.throws(() => stopTokens(config, manifestOf()), {
      name: "ClientError",
      message: /^generation_config.json: found/,
    });
});
