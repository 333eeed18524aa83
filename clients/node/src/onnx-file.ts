// Which files an ONNX model reads: a walk over its protocol buffers that keeps nothing else.
//
// A message is a sequence of fields, each with a number and a wire type:
// https://protobuf.dev/programming-guides/encoding. The numbers below are those of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A field that a message may have once is
// merged where it appears twice, so the walk looks at every occurrence.
import { check, GptossError } from "./errors.js";
import { readFile } from "./files.js";

/** A constant of the graph whose bytes lie in another file. */
export interface ExternalTensor {
  name: string;
  location: string;
  offset: number;
  length: number;
}

const GRAPH_LIMIT = 8_000_000; // bytes: weights lie in other files
// Read in all. An empty message has two bytes in the file, and a hundred times that in memory.
const FIELDS_LIMIT = 1_000_000;
const ORT_MARK = "ORTM"; // bytes 4 to 8 of ONNX Runtime's own format
const DEPTH_LIMIT = 64; // messages inside each other; protobuf's own is 100
const LONGEST_VARINT = 10; // bytes, of 64 bits
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/**
 * Which fields of a message hold messages, and of which kind. A `weight` is a tensor that may lie
 * in another file: an initializer of the main graph. A `tensor` is one that may not.
 */
const CHILDREN = {
  model: { 7: "mainGraph", 20: "training", 25: "function" },
  mainGraph: { 1: "node", 5: "weight", 15: "sparseTensor" },
  graph: { 1: "node", 5: "tensor", 15: "sparseTensor" },
  node: { 5: "attribute" },
  attribute: {
    5: "tensor",
    6: "graph",
    10: "tensor",
    11: "graph",
    22: "sparseTensor",
    23: "sparseTensor",
  },
  sparseTensor: { 1: "tensor", 2: "tensor" },
  training: { 1: "graph", 2: "graph" },
  function: { 7: "node", 11: "attribute" },
} as const satisfies Record<string, Record<number, string>>;
type Kind = keyof typeof CHILDREN | "tensor" | "weight";

const TENSOR_NAME = 8;
const TENSOR_EXTERNAL_DATA = 13;
const TENSOR_DATA_LOCATION = 14;

/**
 * Returns every tensor of a model file that lies in another file; refuses those that are no weights
 * of its graph.
 */
export function externalTensors(path: string): ExternalTensor[] {
  const bytes = readFile(path, GRAPH_LIMIT);
  if (bytes === undefined)
    throw new GptossError(`${path}: no such file, but the manifest names it; export again`);
  try {
    const isOrt = bytes.toString("latin1", 4, 8) === ORT_MARK;
    check(!isOrt, "format", "ONNX Runtime's own", "ONNX");
    const found: ExternalTensor[] = [];
    const graphs = walk(new Message(bytes), "model", found, 0);
    check(graphs === 1, "graph", graphs, "1");
    return found;
  } catch (error) {
    throw new GptossError(
      `${path}: not a model of this project (${(error as Error).message}); export it again`,
    );
  }
}

/** Adds the external tensors below a message to `found`; returns how many main graphs it had. */
function walk(
  message: Message,
  kind: keyof typeof CHILDREN,
  found: ExternalTensor[],
  depth: number,
): number {
  check(
    depth <= DEPTH_LIMIT,
    "nesting",
    "more",
    `at most ${DEPTH_LIMIT} messages inside each other`,
  );
  const children: Record<number, Kind | undefined> = CHILDREN[kind];
  let graphs = 0;
  for (const field of message.fields()) {
    const child = children[field.number];
    if (child === undefined || field.message === undefined) continue;
    if (child === "mainGraph") graphs += 1;
    if (child === "tensor" || child === "weight") {
      const tensor = externalTensor(field.message);
      if (tensor === undefined) continue;
      check(
        child === "weight",
        `tensor '${tensor.name}'`,
        `data in '${tensor.location}'`,
        "data in the model itself",
      );
      found.push(tensor);
    } else {
      walk(field.message, child, found, depth + 1);
    }
  }
  return graphs;
}

/** Returns where a tensor's data lie, undefined where they lie in the model. */
function externalTensor(tensor: Message): ExternalTensor | undefined {
  const entries = new Map<string, string>();
  let name = "";
  let isExternal = false;
  for (const field of tensor.fields()) {
    if (field.number === TENSOR_NAME) name = field.message?.text() ?? "";
    // Any value but 0: readers take an enumeration's low 32 bits, and the last of several fields
    // counts.
    if (field.number === TENSOR_DATA_LOCATION) isExternal ||= field.value !== 0n;
    if (field.number !== TENSOR_EXTERNAL_DATA || field.message === undefined) continue;
    isExternal = true;
    const { key, value } = keyAndValue(field.message);
    check(!entries.has(key), `tensor '${name}': external data`, `'${key}' twice`, "each key once");
    entries.set(key, value);
  }
  if (!isExternal) return undefined;
  const keys = [...entries.keys()].sort().join(", ");
  check(
    keys === "length, location, offset",
    `tensor '${name}': keys of its external data`,
    keys,
    "length, location, offset",
  );
  const number = (key: string): number => {
    const digits = entries.get(key)!;
    const holds = /^[0-9]{1,16}$/.test(digits) && Number.isSafeInteger(Number(digits));
    check(holds, `tensor '${name}': ${key} of its external data`, digits, "a number of bytes");
    return Number(digits);
  };
  return {
    name,
    location: entries.get("location")!,
    offset: number("offset"),
    length: number("length"),
  };
}

/** Reads a StringStringEntryProto; the last of several fields counts, as everywhere. */
function keyAndValue(entry: Message): { key: string; value: string } {
  let [key, value] = ["", ""];
  for (const field of entry.fields()) {
    if (field.number === 1) key = field.message?.text() ?? key;
    if (field.number === 2) value = field.message?.text() ?? value;
  }
  return { key, value };
}

/** One field: a number, or the bytes of a text or a message. */
interface Field {
  number: number;
  value?: bigint;
  message?: Message;
}

/** A message within the bytes of a file, which are never copied. */
class Message {
  constructor(
    private readonly bytes: Buffer,
    private place = 0,
    private readonly end = bytes.length,
    private readonly budget = { fields: FIELDS_LIMIT },
  ) {}

  text(): string {
    return this.bytes.toString("utf8", this.place, this.end);
  }

  /** Yields the fields, once. */
  *fields(): Generator<Field> {
    while (this.place < this.end) {
      this.budget.fields -= 1;
      check(this.budget.fields >= 0, "fields", "more", `at most ${FIELDS_LIMIT}`);
      const key = this.varint();
      check(key < 1n << 32n, "a field's number", key, "one of 29 bits");
      const [number, wireType] = [Number(key >> 3n), Number(key & 7n)];
      check(number > 0, "a field's number", number, "1 or more");
      if (wireType === VARINT) {
        yield { number, value: this.varint() };
        continue;
      }
      const known = wireType === BYTES || wireType === FIXED64 || wireType === FIXED32;
      check(known, "wire type", wireType, "0, 1, 2 or 5");
      const size = wireType === BYTES ? this.varint() : wireType === FIXED64 ? 8n : 4n;
      check(
        size <= BigInt(this.end - this.place),
        "length of a field",
        size,
        "what is left of its message",
      );
      const begin = this.place;
      this.place += Number(size);
      if (wireType !== BYTES) continue;
      yield { number, message: new Message(this.bytes, begin, this.place, this.budget) };
    }
  }

  /** Returns the number at the current place, seven bits a byte from the lowest on. */
  private varint(): bigint {
    let number = 0n;
    for (let count = 0; count < LONGEST_VARINT; count += 1) {
      check(this.place < this.end, "a number", "the end of its message", "its last byte");
      const byte = this.bytes[this.place]!;
      this.place += 1;
      number |= BigInt(byte & 0x7f) << BigInt(7 * count);
      if (byte < 0x80) return number;
    }
    throw new GptossError(
      `a number: found more than ${LONGEST_VARINT} bytes, expected at most that many`,
    );
  }
}
