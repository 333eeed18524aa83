/**
 * Small package: a manifest, a weight file, a graph and golden vectors for tests, and what writes
 * their bytes.
 */
import { createHash } from "node:crypto";

/**
 * @typedef {[number, number | string | Uint8Array | Field[]]} Field  number and value of a field of
 *   a message
 */

/**
 * Return the bytes of a message of protocol buffers.
 * @param {Field[]} fields
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function message(fields) {
  const parts = fields.flatMap(([number, value]) => {
    if (typeof value === "number") return [varint(number * 8), varint(value)];
    const inner = typeof value === "string" ? new TextEncoder().encode(value) : value;
    const bytes = inner instanceof Uint8Array ? inner : message(inner);
    return [varint(number * 8 + 2), varint(bytes.length), bytes];
  });
  return joined(parts);
}

/** @param {number} number */
export function varint(number) {
  const bytes = [];
  for (let rest = number; ; rest = Math.floor(rest / 128)) {
    bytes.push((rest % 128) + (rest >= 128 ? 128 : 0));
    if (rest < 128) return Uint8Array.from(bytes);
  }
}

/** @param {Uint8Array[]} parts */
export const joined = (parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

/**
 * Return the fields of a TensorProto whose bytes lie in a file.
 * @param {string} name
 * @param {string} location
 * @param {number | string} offset
 * @param {number | string} length
 * @returns {Field[]}
 */
export const external = (name, location, offset, length) => [
  [8, name],
  [14, 1],
  ...Object.entries({ location, offset: String(offset), length: String(length) }).map(
    ([key, value]) => {
      return /** @type {Field} */ ([
        13,
        [
          [1, key],
          [2, value],
        ],
      ]);
    },
  ),
];

/**
 * Return a safetensors file of zeros.
 * @param {Record<string, {data_offsets: number[]}>} tensors
 * @param {number} bytes
 */
export function safetensors(tensors, bytes) {
  const header = new TextEncoder().encode(
    JSON.stringify({ __metadata__: { format: "pt" }, ...tensors }),
  );
  const length = new Uint8Array(new BigUint64Array([BigInt(header.length)]).buffer);
  const file = joined([length, header, new Uint8Array(bytes)]);
  return { file, data: 8 + header.length, hash: createHash("sha256").update(header).digest("hex") };
}

const TENSORS = { first: { data_offsets: [0, 8] }, second: { data_offsets: [8, 12] } };
export const WEIGHTS = safetensors(TENSORS, 12);
export const GRAPH = message([
  [1, 10],
  [
    7,
    [
      [
        1,
        [
          [1, "first"],
          [4, "Identity"],
          [
            5,
            [
              [1, "alpha"],
              [3, 7],
            ],
          ],
        ],
      ],
      [5, external("first", "model.safetensors", WEIGHTS.data, 8)],
      [
        5,
        [
          [8, "inner"],
          [9, "1234"],
        ],
      ],
      [5, external("second", "model.safetensors", WEIGHTS.data + 8, 4)],
    ],
  ],
  [
    25,
    [
      [1, "Linear"],
      [
        7,
        [
          [4, "Cast"],
          [
            5,
            [
              [1, "value"],
              [
                5,
                [
                  [8, "constant"],
                  [9, "1234"],
                ],
              ],
            ],
          ],
        ],
      ],
    ],
  ],
]);

/** Return a manifest that fits. @param {object} [changes] @returns {any} */
export const manifestOf = (changes = {}) => ({
  format: "gptoss-onnx",
  format_version: 2,
  target: "portable",
  onnxruntime: "1.28",
  ops: [],
  model: {},
  vocab_size: 16,
  longest: 64,
  eos_tokens: [],
  graph: "model.onnx",
  kv_dtype: "float32",
  cache: [
    {
      window: 0,
      sink_tokens: 0,
      kv_heads: 1,
      head_dim: 2,
      past_key: "past_key_values.0.key",
      past_value: "past_key_values.0.value",
      present_key: "present.0.key",
      present_value: "present.0.value",
    },
  ],
  weights: {
    mode: "copy",
    root: null,
    files: [
      {
        name: "model.safetensors",
        origin: "checkpoint",
        size: WEIGHTS.file.length,
        header_sha256: WEIGHTS.hash,
      },
    ],
  },
  tokenizer_files: ["tokenizer.json"],
  ...changes,
});

/** Return the same in format 1. @returns {any} */
export function manifestOfFormat1() {
  const { vocab_size, longest, eos_tokens, cache, onnxruntime: _least, ...rest } = manifestOf();
  const [{ sink_tokens: _, ...layer }] = cache;
  const model = { vocab_size, max_position_embeddings: longest, eos_token_id: eos_tokens };
  return { ...rest, format_version: 1, model, cache: [layer] };
}

/** @returns {any} */
export const goldenOf = () => ({
  format: "gptoss-onnx-golden",
  format_version: 1,
  vocab_size: 16,
  sampled_indices: [1, 15],
  cases: [
    {
      name: "short",
      text: null,
      token_ids: [3, 1, 4],
      greedy: [1, 5],
      positions: [0, 2],
      top_indices: [
        [9, 2],
        [6, 5],
      ],
      top_logits: [
        [0.5, 0.25],
        [3, -1],
      ],
      sampled_logits: [
        [0, 1],
        [2, 3],
      ],
      logsumexp: [1.5, 2.5],
    },
  ],
});
