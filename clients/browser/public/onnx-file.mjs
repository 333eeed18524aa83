/**
 * ONNX file: finds the tensors whose bytes lie in other files, without trusting the file.
 *
 * A message of protocol buffers is a sequence of fields: a key (number and kind), then a value. The
 * walker follows only fields that can hold a tensor; it refuses what a parser might read
 * differently. Numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
 */
import { ClientError, shown } from "./errors.mjs";

/** @typedef {{name: string, location: string, offset: number, length: number}} ExternalTensor */

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const LONGEST_VARINT = 10; // bytes
const DEEPEST = 100; // messages inside each other, as protobuf's own readers allow
const MOST_FIELDS = 5_000_000; // a graph of gpt-oss-20b has some thousands
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const MODEL_GRAPH = 7;

/**
 * The fields that can lead to a tensor, by message. A tensor of `Weight` may lie in another file,
 * one of `Inner` may not.
 * @type {Record<string, Record<number, string>>}
 */
const MESSAGES = {
  Model: { [MODEL_GRAPH]: "MainGraph", 20: "Training", 25: "Function" },
  MainGraph: { 1: "Node", 5: "Weight", 15: "Sparse" },
  Graph: { 1: "Node", 5: "Inner", 15: "Sparse" },
  Node: { 5: "Attribute" },
  Attribute: { 5: "Inner", 6: "Graph", 10: "Inner", 11: "Graph", 22: "Sparse", 23: "Sparse" },
  Sparse: { 1: "Inner", 2: "Inner" },
  Function: { 7: "Node", 11: "Attribute" },
  Training: { 1: "Graph", 2: "Graph" },
};
const TENSOR = { name: 8, externalData: 13, dataLocation: 14 };
const ENTRY = { key: 1, value: 2 };

/**
 * Return the initializers of the main graph whose bytes lie in other files. Throws a ClientError
 * for what is no ONNX model, and for such a tensor anywhere else.
 * @param {Uint8Array} bytes
 * @param {string} where
 */
export function externalTensors(bytes, where) {
  // ONNX Runtime reads a file with this mark as another format, whatever else the bytes mean.
  const mark = String.fromCharCode(...bytes.subarray(4, 8));
  if (mark === "ORTM")
    throw new ClientError(`${where}: found ONNX Runtime's own format, expected an ONNX model`);
  try {
    return new Walker().walkModel(bytes);
  } catch (error) {
    throw new ClientError(
      `${where}: found ${error.message}, expected an ONNX model; export the package again`,
    );
  }
}

class Walker {
  /** @type {ExternalTensor[]} */
  found = [];
  fieldsLeft = MOST_FIELDS; // a limit on time, whatever the fields are

  /** @param {Uint8Array} bytes */
  walkModel(bytes) {
    let graphs = 0;
    for (const { number } of this.fields(bytes)) graphs += number === MODEL_GRAPH ? 1 : 0;
    if (graphs !== 1) throw new Error(`${graphs} graphs`);
    this.walk(bytes, "Model", 0);
    return this.found;
  }

  /**
   * Visit a message and those inside it.
   * @param {Uint8Array} message
   * @param {string} kind
   * @param {number} depth
   */
  walk(message, kind, depth) {
    if (depth > DEEPEST) throw new Error(`messages more than ${DEEPEST} deep`);
    if (kind === "Weight" || kind === "Inner") {
      const tensor = this.externalTensor(message);
      if (tensor && kind === "Inner")
        throw new Error(
          `external data of ${shown(tensor.name)}, which is no initializer of the main graph`,
        );
      if (tensor) this.found.push(tensor);
      return;
    }
    for (const { number, value } of this.fields(message)) {
      const inner = MESSAGES[kind][number];
      if (inner) this.walk(asBytes(value), inner, depth + 1);
    }
  }

  /** Return where the bytes of a tensor lie if that is another file. @param {Uint8Array} tensor */
  externalTensor(tensor) {
    let name = "";
    let external = false;
    /** @type {Map<string, string>} */
    const entries = new Map();
    for (const { number, value } of this.fields(tensor)) {
      if (number === TENSOR.name) name = asText(value);
      if (number === TENSOR.dataLocation) external ||= asNumber(value) !== 0;
      if (number !== TENSOR.externalData) continue;
      external = true;
      const [key, text] = this.entry(asBytes(value));
      if (entries.has(key))
        throw new Error(`${shown(key)} twice in the external data of ${shown(name)}`);
      entries.set(key, text);
    }
    if (!external) return null;
    const location = entries.get("location");
    const offset = placeNumber(entries.get("offset"));
    const length = placeNumber(entries.get("length"));
    if (entries.size !== 3 || location === undefined || offset === null || length === null)
      throw new Error(
        `external data of ${shown(name)} that is not a location, an offset and a length`,
      );
    return { name, location, offset, length };
  }

  /** Return key and value of a StringStringEntryProto. @param {Uint8Array} message */
  entry(message) {
    let [key, text] = ["", ""];
    for (const { number, value } of this.fields(message)) {
      if (number === ENTRY.key) key = asText(value);
      if (number === ENTRY.value) text = asText(value);
    }
    return [key, text];
  }

  /**
   * Yield the fields of a message: a varint as a number, all else as bytes.
   * @param {Uint8Array} message
   */
  *fields(message) {
    let place = 0;
    while (place < message.length) {
      if (--this.fieldsLeft < 0) throw new Error(`more than ${MOST_FIELDS} fields`);
      const [key, afterKey] = varint(message, place);
      // Parsers cut a larger key to 32 bits, and would see another field.
      if (key < 8 || key >= 2 ** 32) throw new Error("a field without a number");
      const number = Math.floor(key / 8);
      const kind = key % 8;
      if (kind === VARINT) {
        const [value, end] = varint(message, afterKey);
        yield { number, value };
        place = end;
        continue;
      }
      const [size, begin] =
        kind === BYTES ? varint(message, afterKey) : [fixedSize(kind), afterKey];
      if (size > message.length - begin) throw new Error("the end inside a field");
      yield { number, value: message.subarray(begin, begin + size) };
      place = begin + size;
    }
  }
}

/**
 * Return the number at a place, and the place after it: seven bits a byte, from the lowest on. A
 * number above 2 ** 53 is not exact, but still too large for any use of it here.
 * @param {Uint8Array} bytes
 * @param {number} place
 */
function varint(bytes, place) {
  let number = 0;
  for (let i = 0; i < LONGEST_VARINT; i++) {
    const byte = bytes[place + i];
    if (byte === undefined) throw new Error("the end inside a number");
    number += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [number, place + i + 1];
  }
  throw new Error(`a number of more than ${LONGEST_VARINT} bytes`);
}

/** @param {number} kind */
function fixedSize(kind) {
  if (kind === FIXED64) return 8;
  if (kind === FIXED32) return 4;
  throw new Error(`a field of kind ${kind}`);
}

/** @param {string | undefined} digits */
function placeNumber(digits) {
  return digits !== undefined && /^(0|[1-9]\d{0,14})$/.test(digits) ? Number(digits) : null;
}

/** @param {number | Uint8Array} value */
function asBytes(value) {
  if (typeof value === "number") throw new Error("a number in place of a message");
  return value;
}

/** @param {number | Uint8Array} value */
function asNumber(value) {
  if (typeof value !== "number") throw new Error("a message in place of a number");
  return value;
}

/** @param {number | Uint8Array} value */
function asText(value) {
  try {
    return UTF8.decode(asBytes(value));
  } catch {
    throw new Error("text that is not UTF-8");
  }
}
