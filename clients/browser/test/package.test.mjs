import assert from "node:assert/strict";
import { test } from "node:test";
import { externalTensors } from "../public/onnx-file.mjs";
import { checkWeights } from "../public/package.mjs";
import { headerEnd, tensorPlaces } from "../public/safetensors.mjs";
import {
  external,
  GRAPH,
  joined,
  manifestOf,
  message,
  safetensors,
  WEIGHTS,
} from "./small-package.mjs";
import { mutatedBytes, randomIntegers } from "./mutations.mjs";

const NAME = "model.safetensors";
const check = (/** @type {Uint8Array} */ graph, file = WEIGHTS.file, manifest = manifestOf()) =>
  checkWeights(manifest, externalTensors(graph, "model.onnx"), [{ name: NAME, bytes: file }]);
/**
 * A graph with one initializer in a file.
 * @param {string} location
 * @param {number} offset
 * @param {number} length
 */
const graphOf = (location, offset, length) =>
  message([[7, [[5, external("w", location, offset, length)]]]]);

test("tensors of the graph that are tensors of the weight file are taken", () => check(GRAPH));
test("and so is a part of one, as q, k and v of OpenAI's layout are", () =>
  check(graphOf(NAME, WEIGHTS.data + 4, 4)));

/** @type {Record<string, [string, number, number, RegExp]>} */
const OUTSIDE = {
  "another file": [
    "/etc/passwd",
    0,
    8,
    /found file \/etc\/passwd, expected a file that the manifest lists/,
  ],
  "a name with a folder": [`./${NAME}`, WEIGHTS.data, 8, /found file .\/model.safetensors/],
  "the header": [
    NAME,
    8,
    16,
    /found bytes 8\+16 of model.safetensors, expected one tensor of that file/,
  ],
  "more than its end": [NAME, WEIGHTS.data + 4, 8, /expected one tensor of that file/],
  "two tensors": [NAME, WEIGHTS.data, 12, /expected one tensor of that file/],
  "beyond the end": [NAME, WEIGHTS.data, 1e9, /expected one tensor of that file/],
};
for (const [what, [location, offset, length, message]] of Object.entries(OUTSIDE))
  test(`a graph that reads ${what} is refused`, async () => {
    await assert.rejects(check(graphOf(location, offset, length)), {
      name: "ClientError",
      message,
    });
  });

test("a header that is not the recorded one is refused", async () => {
  const other = safetensors(
    { first: { data_offsets: [0, 8] }, other: { data_offsets: [8, 12] } },
    12,
  );
  const error = {
    name: "ClientError",
    message: /model.safetensors: sha256 of the header: found [0-9a-f]{64}, expected/,
  };
  await assert.rejects(check(GRAPH, other.file), error);
});

test("headers that are none are refused in one line", () => {
  const read = (/** @type {Uint8Array} */ file) => {
    const end = headerEnd(file.subarray(0, 8), file.length, "x");
    return tensorPlaces(file.subarray(0, end), file.length, "x");
  };
  assert.equal(read(WEIGHTS.file).length, 2);
  const text = (/** @type {string} */ header) =>
    joined([
      new Uint8Array(new BigUint64Array([BigInt(header.length)]).buffer),
      new TextEncoder().encode(header),
    ]);
  for (const file of [
    Uint8Array.of(),
    Uint8Array.of(1, 2, 3),
    new TextEncoder().encode("root:x:0:0:root:/root:/bin/bash\n"),
    new Uint8Array(100).fill(0xff),
    new Uint8Array(100),
    text("[]"),
    text("nul"),
    text('{"a": 1}'),
    text('{"a": null}'),
    text('{"a": {"data_offsets": [0, 1]}}'),
    text('{"a": {"data_offsets": [-8, 0]}}'),
    text('{"a": {"data_offsets": [0, 1e300]}}'),
    text('{"a": {"data_offsets": "01"}}'),
    text('{"a": {"data_offsets": {"toString": 1, "valueOf": 1}}}'),
    text('{"a": {"data_offsets": [{"toString": 1}, {"toString": 1}]}}'),
  ])
    assert.throws(() => read(file), { name: "ClientError", message: /^x: / });

  const random = randomIntegers(3);
  for (let round = 0; round < 2000; round++) {
    try {
      read(mutatedBytes(WEIGHTS.file, random));
    } catch (error) {
      assert.equal(error.name, "ClientError", `${round}: ${error.stack}`);
    }
  }
});
