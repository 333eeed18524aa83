// Reading files that strangers wrote: regular files alone, of a known size, inside the folder they
// belong to.
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  realpathSync,
} from "node:fs";
import { join, sep } from "node:path";
import { check, GptossError, oneLine } from "./errors.js";

const PIECE = 1 << 20; // bytes of one read

/** Calls `use` with an open regular file and its status; returns undefined if there is no file. */
export function withRegularFile<T>(
  path: string,
  use: (descriptor: number, status: BigIntStats) => T,
): T | undefined {
  let descriptor: number;
  try {
    // Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
    descriptor = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new GptossError(`${path}: cannot be opened (${oneLine(error)})`);
  }
  try {
    const status = fstatSync(descriptor, { bigint: true });
    check(status.isFile(), path, kindOf(status), "a regular file");
    return use(descriptor, status);
  } catch (error) {
    throw error instanceof GptossError
      ? error
      : new GptossError(`${path}: cannot be read (${oneLine(error)})`);
  } finally {
    closeSync(descriptor);
  }
}

/** Returns the bytes of a regular file of at most `limit` bytes, undefined if there is no file. */
export function readFile(path: string, limit: number): Buffer | undefined {
  return withRegularFile(path, (descriptor) => {
    const pieces: Buffer[] = [];
    // The size that fstat gives is no limit: a file may grow, and files of /proc have none.
    let total = 0;
    while (true) {
      const piece = readAt(descriptor, total, Math.min(PIECE, limit + 1 - total));
      if (piece.length === 0) return Buffer.concat(pieces);
      total += piece.length;
      check(total <= limit, path, `more than ${limit} bytes`, "at most that many in such a file");
      pieces.push(piece);
    }
  });
}

/** Returns up to `length` bytes from `place` on; fewer only at the end of the file. */
export function readAt(descriptor: number, place: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const count = readSync(descriptor, bytes, filled, length - filled, place + filled);
    if (count === 0) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}

/**
 * Returns the path of a package's file, which no link may lead out of the folder; the file may be
 * missing.
 */
export function confined(folder: string, name: string): string {
  const path = join(folder, name);
  let real: string;
  try {
    real = realpathSync(path);
  } catch (error) {
    // If it is a link to no file, opening it finds none either.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return path;
    throw new GptossError(`${path}: cannot be opened (${oneLine(error)})`);
  }
  const inside = real.startsWith(join(realpathSync(folder), sep));
  check(
    inside,
    path,
    `a link to ${real}`,
    "a file inside the package folder; export it with --weights copy",
  );
  return path;
}

/** Says whether a name can only be that of a file directly in a folder. */
export function isPlainName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\\\0]/.test(name);
}

function kindOf(status: BigIntStats): string {
  if (status.isDirectory()) return "a folder";
  if (status.isFIFO()) return "a FIFO";
  if (status.isSocket()) return "a socket";
  return "a device";
}
