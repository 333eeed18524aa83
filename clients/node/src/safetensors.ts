import { createHash } from "node:crypto";
import { check } from "./errors.js";
import { Fields } from "./fields.js";
import { readAt } from "./files.js";
import { parseJson } from "./json.js";

export const HEADER_LIMIT = 16_000_000; // bytes: a hundred thousand tensors
const PREFIX = 8; // bytes before the header, which give its length

/**
 * What a safetensors file says of itself: its first bytes hold the header's length, then comes the
 * header, JSON.
 */
export interface SafetensorsHeader {
  sha256: string;
  ranges: Ranges;
}

/** Where each tensor begins and ends in the file, in their order there. */
export type Ranges = readonly (readonly [number, number])[];

/** Reads the header of an open file of `size` bytes; `path` names it in errors. */
export function readHeader(descriptor: number, size: number, path: string): SafetensorsHeader {
  const prefix = readAt(descriptor, 0, PREFIX);
  const length = prefix.length === PREFIX ? Number(prefix.readBigUInt64LE()) : 0;
  const most = Math.min(size - PREFIX, HEADER_LIMIT);
  check(
    length > 0 && length <= most,
    `${path}: length of the safetensors header`,
    length,
    `1 to ${most}`,
  );
  const bytes = readAt(descriptor, PREFIX, length);
  const document = parseJson(bytes, `${path}: safetensors header`);
  const begin = PREFIX + length;
  const ranges: [number, number][] = [];
  const header = new Fields(document, path);
  for (const name of Object.keys(document as object)) {
    if (name === "__metadata__") continue;
    const tensor = header.object(name);
    const [from, to] = tensor.list("data_offsets", (offset) => offset, 2, 2) as [number, number];
    const holds = Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from <= to;
    check(
      holds && begin + to <= size,
      tensor.name("data_offsets"),
      `${from}, ${to}`,
      "a range within the file",
    );
    ranges.push([begin + from, begin + to]);
  }
  ranges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return { sha256: createHash("sha256").update(bytes).digest("hex"), ranges };
}

/**
 * Whether some bytes are those of one tensor, or a part of them: q, k and v are parts where a
 * checkpoint stores the rows of the three in one tensor.
 */
export function liesInOne(ranges: Ranges, offset: number, length: number): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle]![0] <= offset) low = middle + 1;
    else high = middle;
  }
  return low > 0 && length >= 0 && offset + length <= ranges[low - 1]![1];
}
