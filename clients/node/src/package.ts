import { existsSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";

/** Wrong input or environment, in one line: the thing, what was found, what was expected. */
export class GptossError extends Error {}

/** What this client reads of `manifest.json`; `manifest.schema.json` describes all of it. */
export interface Manifest extends Record<"format" | "target" | "graph", string> {
  format_version: number;
  model: { vocab_size: number; max_position_embeddings: number; eos_token_id?: number | number[] | null };
  kv_dtype: "float32" | "float16" | "bfloat16";
  cache: (Record<"window" | "kv_heads" | "head_dim", number> &
    Record<"past_key" | "past_value" | "present_key" | "present_value", string>)[];
  ops: { domain: string; name: string }[];
  weights: { mode: string; root: string | null; files: Record<"name" | "origin" | "size" | "mtime_ns", unknown>[] };
}

/** A package folder whose files are those it was written with. */
export type PackageFolder = ReturnType<typeof openPackage>;

export function openPackage(path: string) {
  const folder = resolve(path);
  const manifest = readJson(join(folder, "manifest.json")) as Manifest | undefined;
  if (manifest === undefined) throw new GptossError(`${folder}: not a package: it has no manifest.json`);
  oneOf(`${folder}: manifest: format`, manifest.format, ["gptoss-onnx"]);
  oneOf(`${folder}: manifest: format_version`, manifest.format_version, [1]);
  oneOf(`${folder}: manifest: target`, manifest.target, ["portable", "ort"]);
  const graph = join(folder, manifest.graph);
  if (!existsSync(graph)) throw new GptossError(`${graph}: no such file, but the manifest names it; export again`);
  checkWeights(folder, manifest.weights);
  const generation = readJson(join(folder, "generation_config.json")) as Partial<Manifest["model"]> | undefined;
  const stopTokens = [generation?.eos_token_id ?? manifest.model.eos_token_id ?? []].flat();
  return { folder, manifest, graph, stopTokens };
}

/** Returns the document in a file, undefined where there is no file. */
export function readJson(path: string): unknown {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new GptossError(`${path}: not JSON (${oneLine(error)}); export the package again`);
  }
}

function checkWeights(folder: string, { root, mode, files }: Manifest["weights"]): void {
  for (const { name, origin, size, mtime_ns } of files) {
    const path = join(root ?? folder, String(name));
    const found = statSync(path, { bigint: true, throwIfNoEntry: false });
    // The checkpoint's own files may be rewritten in place; nobody does that to a copy, and copying changes its time.
    const isShared = mode !== "copy" && origin === "checkpoint";
    oneOf(`${path}: bytes of the weight file (export again)`, found && Number(found.size), [size]);
    if (isShared) oneOf(`${path}: ns of its modification time (export again)`, Number(found?.mtimeNs), [mtime_ns]);
  }
}

/** Returns what was thrown as one line. */
export function oneLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
}

/** Says what failed before the words of what threw. */
export async function explained<T>(what: string, promise: Promise<T>): Promise<T> {
  return promise.catch((error: unknown) => {
    throw error instanceof GptossError ? error : new GptossError(`${what}: ${oneLine(error)}`);
  });
}

export function check(holds: boolean, name: string, found: unknown, expected: string): void {
  if (!holds) throw new GptossError(`${name}: found ${found ?? "none"}, expected ${expected}`);
}

export function oneOf(name: string, found: unknown, known: unknown[]): void {
  check(known.includes(found), name, found, known.join(" or "));
}

export function checkInteger(name: string, found: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  const holds = Number.isSafeInteger(found) && found >= least && found <= most;
  check(holds, name, found, `an integer from ${least} to ${most}`);
}
