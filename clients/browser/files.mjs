/**
 * Files: the ones that the server hands out, and the rule that each of them obeys.
 *
 * A package comes from a stranger. Its files are regular files whose real place is in the package
 * folder. Only in mode `reference` are there others: weight files of the checkpoint, below the
 * folder that the manifest names. Those must be the very safetensors files that the manifest
 * describes, so that a manifest cannot hand out anything else.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import { ClientError, expect, messageOf } from "./public/errors.mjs";
import { parseJson } from "./public/json.mjs";
import {
  checkManifest,
  GENERATION_CONFIG,
  GOLDEN,
  listedFiles,
  MANIFEST,
  MOST_BYTES,
  outerRoot,
} from "./public/manifest.mjs";
import { headerEnd, tensorPlaces } from "./public/safetensors.mjs";

/**
 * @typedef {import("./public/manifest.mjs").WeightFile} WeightFile
 * @typedef {{folder: string, name: string, weights: WeightFile | null}} ServedFile  `folder` is its
 *   real path, and `name` relative to it
 */

const OPTIONAL = [GENERATION_CONFIG, GOLDEN];
// Neither waits for the writer of a FIFO nor follows a link that was set meanwhile. Windows has
// neither flag.
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/**
 * Return every file of a package that may be handed out; throw a ClientError for the first that is
 * missing or is not what the manifest says.
 * @param {string} folder
 */
export async function packageFiles(folder) {
  const place = await realFolder(folder);
  const manifest = checkManifest(await readManifest(place));
  /** @type {ServedFile[]} */
  const files = [];
  for (const { name, weights } of listedFiles(manifest)) {
    const root = weights && outerRoot(manifest.weights, weights);
    const file = { folder: root === null ? place : await realFolder(root), name, weights };
    const opened = await openServed(file);
    await opened?.handle.close();
    const path = join(file.folder, name);
    expect(
      path,
      "no such file",
      opened !== null || OPTIONAL.includes(name),
      `one, as ${MANIFEST} lists it`,
    );
    files.push(file);
  }
  return files;
}

/**
 * Open a file that obeys the rule; null where there is none. Throws a ClientError for a file that
 * does not.
 * @param {ServedFile} file
 */
export async function openServed({ folder, name, weights }) {
  const path = join(folder, ...name.split("/"));
  const real = await unlessMissing(path, () => realpath(path));
  if (real === null) return null;
  const inside = real.startsWith(folder.endsWith(sep) ? folder : folder + sep);
  expect(path, `a link to ${real}`, inside, `a file in ${folder}`);
  const handle = await unlessMissing(path, () => open(real, FLAGS));
  if (handle === null) return null;
  try {
    const stat = await handle.stat();
    expect(
      path,
      stat.isDirectory() ? "a folder" : "a FIFO or a device",
      stat.isFile(),
      "a regular file",
    );
    if (weights) await checkWeights(path, handle, stat.size, weights);
    return { handle, size: stat.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * @param {string} path
 * @param {import("node:fs/promises").FileHandle} handle
 * @param {number} size
 * @param {WeightFile} expected
 */
async function checkWeights(path, handle, size, expected) {
  expect(
    `${path}: bytes`,
    size,
    size === expected.size,
    `${expected.size}; export the package again`,
  );
  const end = headerEnd(await readStart(handle, 8), size, path);
  const header = await readStart(handle, end);
  tensorPlaces(header, size, path);
  const hash = createHash("sha256").update(header.subarray(8)).digest("hex");
  const same = hash === expected.header_sha256;
  expect(
    `${path}: sha256 of the header`,
    hash,
    same,
    `${expected.header_sha256}; export the package again`,
  );
}

/** @param {string} folder  real path of a package */
async function readManifest(folder) {
  const opened = await openServed({ folder, name: MANIFEST, weights: null });
  if (opened === null)
    throw new ClientError(`${folder}: found no ${MANIFEST}, expected a package folder`);
  try {
    const path = join(folder, MANIFEST);
    expect(
      `${path}: bytes`,
      opened.size,
      opened.size <= MOST_BYTES.manifest,
      `at most ${MOST_BYTES.manifest}`,
    );
    return parseJson(await readStart(opened.handle, opened.size), path);
  } finally {
    await opened.handle.close();
  }
}

/**
 * Return the first bytes of a file.
 * @param {import("node:fs/promises").FileHandle} handle
 * @param {number} length
 */
async function readStart(handle, length) {
  const { bytesRead, buffer } = await handle.read(new Uint8Array(length), 0, length, 0);
  return buffer.subarray(0, bytesRead);
}

/** @param {string} folder */
async function realFolder(folder) {
  const real = await unlessMissing(folder, () => realpath(folder));
  if (real === null)
    throw new ClientError(`${folder}: found no such folder, expected a package or its checkpoint`);
  return real;
}

/**
 * Return what an attempt returns, null where it finds no file.
 * @template T
 * @param {string} path
 * @param {() => Promise<T>} attempt
 */
async function unlessMissing(path, attempt) {
  try {
    return await attempt();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw new ClientError(`${path}: cannot be opened (${messageOf(error)})`);
  }
}
