import { join } from "node:path";
import { createRequire } from "node:module";
import { GptossError, oneOf, readJson } from "./package.js";
import { largest, mass } from "./sampling.js";
import type { Session } from "./session.js";

type Golden = { format: string; format_version: number; sampled_indices: number[]; cases: GoldenCase[] };
type GoldenCase = { name: string } & Record<"token_ids" | "greedy" | "positions" | "logsumexp", number[]> &
  Record<"top_indices" | "top_logits" | "sampled_logits", number[][]>;

const LIMIT = 1e-3;

/** Runs every golden case of the package and returns the verdict that clients/README.md describes. */
export async function verify(session: Session): Promise<{ passed: boolean; [key: string]: unknown }> {
  const { folder, manifest } = session.files;
  const path = join(folder, "golden/golden.json");
  const golden = readJson(path) as Golden | undefined;
  if (!golden) throw new GptossError(`${path}: no such file; gptoss-onnx validate --write-golden writes it`);
  oneOf(`${path}: format`, golden.format, ["gptoss-onnx-golden"]);
  oneOf(`${path}: format_version`, golden.format_version, [1]);
  const begin = performance.now();
  const cases = [];
  for (const entry of golden.cases) cases.push(await verifyCase(session, entry, golden.sampled_indices));
  const { version } = createRequire(import.meta.url)("onnxruntime-node/package.json") as { version: string };
  return {
    format: "gptoss-onnx-verdict", format_version: 1, passed: cases.length > 0 && cases.every((entry) => entry.passed),
    client: "node", runtime: `onnxruntime ${version}`, package: folder, target: manifest.target,
    kernels: session.kernels, activations: session.activations, limit: LIMIT,
    seconds: (performance.now() - begin) / 1000, cases,
  };
}

async function verifyCase(session: Session, golden: GoldenCase, sampled: number[]) {
  const { name, token_ids, greedy, positions, top_indices, top_logits, sampled_logits, logsumexp } = golden;
  const logits = await session.forward(token_ids, session.newCache(token_ids.length), positions);
  let [maxAbs, logsumexpAbs] = [0, 0];
  positions.forEach((_, p) => {
    const row = logits.subarray(p * session.vocab, (p + 1) * session.vocab);
    const differences = (indices: number[], expected: number[]): number[] =>
      indices.map((index, i) => Math.abs(row[index]! - expected[i]!));
    const leading = differences(top_indices[p]!, top_logits[p]!);
    maxAbs = Math.max(maxAbs, ...leading, ...differences(sampled, sampled_logits[p]!));
    const top = largest(row);
    logsumexpAbs = Math.max(logsumexpAbs, Math.abs(top + Math.log(mass(row, top)) - logsumexp[p]!));
  });
  const generation = session.generate(token_ids, { maxNewTokens: greedy.length, sampling: { stopTokens: [] } });
  let equal = 0;
  for await (const token of generation)
    if (token === greedy[equal]) equal += 1;
    else break;
  const passed = maxAbs <= LIMIT && logsumexpAbs <= LIMIT && equal === greedy.length; // false for NaN
  return {
    name, passed, positions: positions.length, max_abs: maxAbs, logsumexp_abs: logsumexpAbs,
    greedy_tokens: greedy.length, greedy_equal: equal, note: "",
  };
}
