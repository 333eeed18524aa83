import assert from "node:assert/strict";
import { test } from "node:test";
import { externalTensors } from "../public/onnx-file.mjs";
import { external, GRAPH, joined, message, varint, WEIGHTS } from "./small-package.mjs";
import { mutatedBytes, randomIntegers } from "./mutations.mjs";

/** @typedef {import("./small-package.mjs").Field} Field */

const OUTSIDE = external("secret", "/etc/passwd", 0, 16);
/** A model with this main graph. @param {Field[]} graph */
const modelOf = (graph) => message([[7, graph]]);
/** A model whose graph has a node with this attribute. @param {Field} field */
const withAttribute = (field) =>
  modelOf([
    [
      1,
      [
        [4, "Constant"],
        [5, [[1, "value"], field]],
      ],
    ],
  ]);

test("tensors in other files are found, with their places", () => {
  const location = "model.safetensors";
  assert.deepEqual(externalTensors(GRAPH, "model.onnx"), [
    { name: "first", location, offset: WEIGHTS.data, length: 8 },
    { name: "second", location, offset: WEIGHTS.data + 8, length: 4 },
  ]);
});

/** @type {Record<string, [Uint8Array, RegExp]>} */
const REFUSED = {
  nothing: [Uint8Array.of(), /found 0 graphs/],
  "no graph": [message([[1, 10]]), /found 0 graphs/],
  "two graphs": [
    message([
      [7, []],
      [7, []],
    ]),
    /found 2 graphs/,
  ],
  "another file": [new TextEncoder().encode("root:x:0:0:root:/root"), /expected an ONNX model/],
  "external data in an attribute": [
    withAttribute([5, OUTSIDE]),
    /found external data of secret, which is no initializer/,
  ],
  "in a list of an attribute": [withAttribute([10, OUTSIDE]), /external data of secret/],
  "in a subgraph": [withAttribute([6, [[5, OUTSIDE]]]), /external data of secret/],
  "in one of several subgraphs": [withAttribute([11, [[5, OUTSIDE]]]), /external data of secret/],
  "in a node of a subgraph": [
    withAttribute([6, [[1, [[5, [[5, OUTSIDE]]]]]]]),
    /external data of secret/,
  ],
  "in a sparse attribute": [withAttribute([22, [[1, OUTSIDE]]]), /external data of secret/],
  "in a list of sparse attributes": [
    withAttribute([23, [[2, OUTSIDE]]]),
    /external data of secret/,
  ],
  "in a sparse initializer": [modelOf([[15, [[1, OUTSIDE]]]]), /external data of secret/],
  "in the indices of a sparse initializer": [
    modelOf([[15, [[2, OUTSIDE]]]]),
    /external data of secret/,
  ],
  "in a function": [
    message([
      [7, []],
      [25, [[7, [[5, [[5, OUTSIDE]]]]]]],
    ]),
    /external data of secret/,
  ],
  "in a default of a function": [
    message([
      [7, []],
      [25, [[11, [[5, OUTSIDE]]]]],
    ]),
    /external data of secret/,
  ],
  "in training": [
    message([
      [7, []],
      [20, [[1, [[5, OUTSIDE]]]]],
    ]),
    /external data of secret/,
  ],
  "by its location alone": [
    withAttribute([
      5,
      [
        [8, "t"],
        [14, 1],
      ],
    ]),
    /external data of t /,
  ],
  "by its entries alone": [
    withAttribute([
      5,
      [
        [8, "t"],
        [
          13,
          [
            [1, "location"],
            [2, "x"],
          ],
        ],
      ],
    ]),
    /external data of t /,
  ],
  "without a place": [
    modelOf([
      [
        5,
        [
          [8, "t"],
          [14, 1],
        ],
      ],
    ]),
    /external data of t that is not/,
  ],
  "with another entry": [
    modelOf([
      [
        5,
        [
          ...external("t", "x", 0, 1),
          [
            13,
            [
              [1, "checksum"],
              [2, "0"],
            ],
          ],
        ],
      ],
    ]),
    /that is not/,
  ],
  "with an entry twice": [
    modelOf([
      [
        5,
        [
          ...external("t", "x", 0, 1),
          [
            13,
            [
              [1, "offset"],
              [2, "9"],
            ],
          ],
        ],
      ],
    ]),
    /offset twice/,
  ],
  "with an offset below 0": [modelOf([[5, external("t", "x", "-1", 1)]]), /that is not/],
  "with an offset that is no number": [
    modelOf([[5, external("t", "x", "0x10", 1)]]),
    /that is not/,
  ],
  "with a length of 20 digits": [
    modelOf([[5, external("t", "x", 0, "9".repeat(20))]]),
    /that is not/,
  ],
  "with a location that is no text": [
    modelOf([
      [
        5,
        [
          [14, 1],
          [
            13,
            [
              [1, "location"],
              [2, Uint8Array.of(0xff)],
            ],
          ],
        ],
      ],
    ]),
    /text that is not UTF-8/,
  ],
  "a number without an end": [new Uint8Array(400_000).fill(0xff), /a number of more than 10 bytes/],
  "a field that is cut off": [GRAPH.subarray(0, GRAPH.length - 1), /the end inside a field/],
  "a field number beyond 32 bits": [
    joined([message([[7, []]]), varint(2 ** 32 + 7 * 8 + 2), varint(0)]),
    /a field without a number/,
  ],
  "a group": [Uint8Array.of(0x3b, 0x3c), /a field of kind 3/],
  "a number in place of the graph": [Uint8Array.of(0x38, 0x01), /a number in place of a message/],
  "ONNX Runtime's own format": [
    joined([Uint8Array.of(0x12, 0x84, 0x80, 0x00), new TextEncoder().encode("ORTM"), GRAPH]),
    /ONNX Runtime's own format/,
  ],
  "many empty fields": [
    message([[7, new Uint8Array(2 * 6_000_000).fill(0).map((_, i) => (i % 2 ? 0 : 0x2a))]]),
    /more than 5000000 fields/,
  ],
};
for (const [what, [bytes, says]] of Object.entries(REFUSED))
  test(`refused in one line: ${what}`, () => {
    const begin = performance.now();
    assert.throws(() => externalTensors(bytes, "model.onnx"), {
      name: "ClientError",
      message: says,
    });
    assert.ok(performance.now() - begin < 10_000);
  });

test("messages inside each other are followed to a limited depth", () => {
  /** @type {Field[]} */
  let graph = [[5, OUTSIDE]];
  for (let depth = 0; depth < 1000; depth++) graph = [[1, [[5, [[6, message(graph)]]]]]];
  assert.throws(() => externalTensors(modelOf(graph), "model.onnx"), {
    name: "ClientError",
    message: /100 deep/,
  });
});

test("a mutated graph is read, or refused with our error", () => {
  const random = randomIntegers(2);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    try {
      externalTensors(mutatedBytes(GRAPH, random), "model.onnx");
    } catch (error) {
      assert.equal(error.name, "ClientError", `${round}: ${error.stack}`);
      assert.doesNotMatch(error.message, /[\x00-\x1f]/);
      refused++;
    }
  }
  assert.ok(refused > 500 && refused < 3000, `${refused} were refused`);
});
