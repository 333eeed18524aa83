import { type BigIntStats, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { check, GptossError } from "./errors.js";
import { Fields } from "./fields.js";
import { confined, withRegularFile } from "./files.js";
import { readJson } from "./json.js";
import { type Manifest, parseManifest, type WeightFile } from "./manifest.js";
import { externalTensors } from "./onnx-file.js";
import { liesInOne, type Ranges, readHeader } from "./safetensors.js";

const STAGING_SUFFIX = ".partial"; // of a folder that an export has not finished

/** A weight file as it was when the package was opened. */
interface OpenedWeights {
  name: string;
  path: string;
  status: BigIntStats;
  ranges: Ranges;
}

/** A package folder whose files are those it was written with. */
export class PackageFolder {
  private constructor(
    readonly folder: string,
    readonly manifest: Manifest,
    /** Path of the ONNX file. */
    readonly graph: string,
    /** Ids that end a text. */
    readonly stopTokens: readonly number[],
    private readonly weights: readonly OpenedWeights[],
  ) {}

  /**
   * Opens a folder and checks what it makes a reader touch: every file lies in it, or is a weight
   * file below the root of mode `reference`, and every weight of the graph is one tensor of a file
   * that the manifest lists.
   */
  static open(path: string): PackageFolder {
    check(typeof path === "string" && path !== "", "package", path, "the path of a folder");
    const folder = resolve(path);
    const document = readJson(confined(folder, "manifest.json"));
    if (document === undefined)
      throw new GptossError(`${folder}: not a package: it has no manifest.json`);
    check(!folder.endsWith(STAGING_SUFFIX), folder, "an unfinished export", "a package; delete it");
    const manifest = parseManifest(document, `${folder}: manifest`);
    for (const name of manifest.tokenizer_files) requireFile(confined(folder, name));
    const weights = manifest.weights.files.map((file) =>
      openWeights(folder, manifest.weights, file),
    );
    const graph = confined(folder, manifest.graph);
    checkExternalTensors(graph, weights);
    return new PackageFolder(folder, manifest, graph, readStopTokens(folder, manifest), weights);
  }

  /** Returns the document in a file of the folder, undefined where there is none. */
  readJson(name: string, limit?: number): unknown {
    return readJson(confined(this.folder, name), limit);
  }

  /**
   * Refuses weights that changed since the package was opened: they are mapped into memory, where
   * bytes cut off end the process and bytes rewritten change its tokens.
   */
  checkUnchanged(): void {
    for (const { path, status } of this.weights) {
      const now = statSync(path, { bigint: true, throwIfNoEntry: false });
      const isSame =
        now?.size === status.size && now.mtimeNs === status.mtimeNs && now.ino === status.ino;
      const found = now === undefined ? "no file" : "another size, time or inode";
      check(
        isSame,
        `${path}: changed while the package is open`,
        found,
        "the file as it was; open the package again",
      );
    }
  }
}

function requireFile(path: string): void {
  if (withRegularFile(path, () => true)) return;
  throw new GptossError(`${path}: no such file, but the manifest names it; export again`);
}

function readStopTokens(folder: string, manifest: Manifest): readonly number[] {
  const path = confined(folder, "generation_config.json");
  const document = readJson(path);
  const found =
    document === undefined ? undefined : new Fields(document, path).tokenIds("eos_token_id");
  return found ?? manifest.eos_tokens;
}

/** Opens one weight file and compares it with what the manifest says of it. */
function openWeights(
  folder: string,
  weights: Manifest["weights"],
  file: WeightFile,
): OpenedWeights {
  const path = weights.root === null ? confined(folder, file.name) : join(weights.root, file.name);
  const opened = withRegularFile(path, (descriptor, status) => {
    check(
      Number(status.size) === file.size,
      `${path}: bytes of the weight file (export again)`,
      status.size,
      `${file.size}`,
    );
    // The checkpoint's own files may be rewritten in place; nobody does that to a copy, and copying
    // changes its time.
    const isShared = weights.mode !== "copy" && file.origin === "checkpoint";
    const time = Number(status.mtimeNs);
    const name = `${path}: ns of its modification time (export again)`;
    check(!isShared || time === file.mtime_ns, name, time, `${file.mtime_ns}`);
    const { sha256, ranges } = readHeader(descriptor, file.size, path);
    const hash = `${path}: sha256 of its safetensors header (export again)`;
    check(sha256 === file.header_sha256, hash, sha256, file.header_sha256);
    return { name: file.name, path, status, ranges };
  });
  if (opened === undefined)
    throw new GptossError(`${path}: no such file, but weights lie there; export again`);
  return opened;
}

/** Refuses a graph that reads other bytes than those of tensors of the files listed. */
function checkExternalTensors(graph: string, weights: readonly OpenedWeights[]): void {
  const files = new Map(weights.map((file) => [file.name, file]));
  for (const { name, location, offset, length } of externalTensors(graph)) {
    const file = files.get(location);
    const expected = "a weight file that the manifest lists";
    check(file !== undefined, `${graph}: tensor '${name}': its file`, `'${location}'`, expected);
    const found = `${length} bytes at ${offset}`;
    const isTensor = liesInOne(file.ranges, offset, length);
    check(
      isTensor,
      `${graph}: tensor '${name}' in ${location}`,
      found,
      "the bytes of one tensor of that file, or some of them",
    );
  }
}
