/**
 * Package: fetches the files of a package folder and checks that the graph reads nothing but the
 * listed weights.
 */
import { expect } from "./errors.mjs";
import { fetchBytes, fetchJson, fileUrl } from "./fetch.mjs";
import {
  checkManifest,
  GENERATION_CONFIG,
  GOLDEN,
  MANIFEST,
  MOST_BYTES,
  stopTokens,
} from "./manifest.mjs";
import { externalTensors } from "./onnx-file.mjs";
import { headerEnd, liesInOne, tensorPlaces } from "./safetensors.mjs";

/**
 * @typedef {import("./manifest.mjs").Manifest} Manifest
 * @typedef {import("./fetch.mjs").OnProgress} OnProgress
 * @typedef {{name: string, bytes: Uint8Array<ArrayBuffer>}} NamedBytes
 */

/** Return the manifest of a package, checked. @param {URL} folder */
export async function fetchManifest(folder) {
  return checkManifest(await fetchJson(fileUrl(MANIFEST, folder), { most: MOST_BYTES.manifest }));
}

/**
 * Return the document `tokenizer.json`, or null where the package has none.
 * @param {Manifest} manifest
 * @param {URL} folder
 * @param {OnProgress} [onProgress]
 */
export async function fetchTokenizer(manifest, folder, onProgress) {
  if (!manifest.tokenizer_files.includes("tokenizer.json")) return null;
  return fetchJson(fileUrl("tokenizer.json", folder), { most: MOST_BYTES.tokenizer, onProgress });
}

/** Return the tokens that end a text. @param {Manifest} manifest @param {URL} folder */
export async function fetchStopTokens(manifest, folder) {
  const options = { most: MOST_BYTES.generationConfig, instead: "{}" };
  return stopTokens(await fetchJson(fileUrl(GENERATION_CONFIG, folder), options), manifest);
}

/** Return the document `golden/golden.json`, unchecked. @param {URL} folder */
export const fetchGolden = (folder) =>
  fetchJson(fileUrl(GOLDEN, folder), { most: MOST_BYTES.golden });

/**
 * Return the graph and the weight files, checked against each other and the manifest.
 * @param {Manifest} manifest
 * @param {URL} folder
 * @param {OnProgress} [onProgress]
 */
export async function fetchModel(manifest, folder, onProgress) {
  const graph = await fetchBytes(fileUrl(manifest.graph, folder), {
    most: MOST_BYTES.graph,
    onProgress,
  });
  // A graph that is refused costs no download of weights.
  const tensors = externalTensors(graph, manifest.graph);
  /** @type {NamedBytes[]} */
  const weights = [];
  for (const { name, size } of manifest.weights.files)
    weights.push({
      name,
      bytes: await fetchBytes(fileUrl(name, folder), { most: size, size, onProgress }),
    });
  await checkWeights(manifest, tensors, weights);
  return { graph, weights };
}

/**
 * Throw unless every tensor that a graph reads from a file is one tensor of a listed weight file,
 * or a part of one.
 * @param {Manifest} manifest
 * @param {import("./onnx-file.mjs").ExternalTensor[]} tensors  of the graph
 * @param {NamedBytes[]} weights  the listed files, in their order
 */
export async function checkWeights(manifest, tensors, weights) {
  /** @type {Map<string, [number, number][]>} */
  const files = new Map();
  for (const [i, { name, bytes }] of weights.entries()) {
    const header = bytes.subarray(0, headerEnd(bytes.subarray(0, 8), bytes.length, name));
    await checkHash(name, header.subarray(8), manifest.weights.files[i].header_sha256);
    files.set(name, tensorPlaces(header, bytes.length, name));
  }
  for (const { name, location, offset, length } of tensors) {
    const where = `${manifest.graph}: data of ${name}`;
    const places = files.get(location);
    expect(
      where,
      `file ${location}`,
      places !== undefined,
      "a file that the manifest lists in weights.files",
    );
    expect(
      where,
      `bytes ${offset}+${length} of ${location}`,
      places !== undefined && liesInOne(places, offset, length),
      "one tensor of that file, or a part of one",
    );
  }
}

/**
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} header  without its prefix
 * @param {string} expected
 */
async function checkHash(name, header, expected) {
  // Browsers give it to secure contexts alone: https, or loopback.
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", header));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  expect(
    `${name}: sha256 of the header`,
    found,
    found === expected,
    `${expected}; export the package again`,
  );
}
