/**
 * Safetensors: which bytes of a weight file are tensors, by its header.
 *
 * A file is an 8-byte little-endian length, a JSON header of that length, and the tensors' bytes.
 * The header gives each tensor's first and last byte, counted from the header's end.
 */
import { expect } from "./errors.mjs";
import { parseJson } from "./json.mjs";

const PREFIX = 8; // bytes of the length
const MOST_HEADER_BYTES = 16e6;

/**
 * Return how many bytes the header takes, prefix included.
 * @param {Uint8Array} prefix  the first 8 bytes
 * @param {number} size  of the file
 * @param {string} where
 */
export function headerEnd(prefix, size, where) {
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.length);
  const length = prefix.length < PREFIX ? 0 : Number(view.getBigUint64(0, true));
  const most = Math.min(size - PREFIX, MOST_HEADER_BYTES);
  expect(
    `${where}: safetensors header in bytes`,
    length,
    length > 0 && length <= most,
    `1 to ${most}`,
  );
  return PREFIX + length;
}

/**
 * Return where each tensor begins and ends in the file, in their order there.
 * @param {Uint8Array} header  of `headerEnd` bytes, prefix included
 * @param {number} size
 * @param {string} where
 */
export function tensorPlaces(header, size, where) {
  const document = parseJson(header.subarray(PREFIX), where);
  const isObject = typeof document === "object" && document !== null && !Array.isArray(document);
  expect(`${where}: safetensors header`, document, isObject, "an object");
  /** @type {[number, number][]} */
  const places = [];
  for (const [name, tensor] of Object.entries(document)) {
    if (name === "__metadata__") continue;
    const offsets = tensor?.data_offsets;
    const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? offsets : [-1, -1];
    const inside =
      [begin, end].every(Number.isInteger) &&
      begin >= 0 &&
      begin <= end &&
      header.length + end <= size;
    expect(`${where}: data_offsets of ${name}`, offsets, inside, "two places within the file");
    places.push([header.length + begin, header.length + end]);
  }
  return places.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
}

/**
 * Say whether some bytes are those of one tensor, or a part of them: q, k and v are parts where a
 * checkpoint stores the rows of the three in one tensor.
 * @param {[number, number][]} places  as `tensorPlaces` returns them
 * @param {number} offset
 * @param {number} length
 */
export function liesInOne(places, offset, length) {
  let [low, high] = [0, places.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle][0] <= offset) low = middle + 1;
    else high = middle;
  }
  return low > 0 && length >= 0 && offset + length <= places[low - 1][1];
}
