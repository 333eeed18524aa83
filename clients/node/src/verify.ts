import { join } from "node:path";
import { GptossError } from "./errors.js";
import { type GoldenCase, parseGolden } from "./golden.js";
import { RUNTIME_VERSION } from "./runtime.js";
import { largest, mass } from "./sampling.js";
import type { Session } from "./session.js";

const LIMIT = 1e-3; // of differences of logits
const GOLDEN = "golden/golden.json";

/** How one case came out; clients/README.md describes it. */
export interface CaseVerdict {
  name: string;
  passed: boolean;
  positions: number;
  max_abs: number;
  logsumexp_abs: number;
  greedy_tokens: number;
  greedy_equal: number;
  note: string;
}

/** The document that clients/README.md describes. */
export interface Verdict {
  format: "gptoss-onnx-verdict";
  format_version: 1;
  passed: boolean;
  client: "node";
  runtime: string;
  package: string;
  target: string;
  kernels: string;
  activations: string;
  limit: number;
  seconds: number;
  cases: CaseVerdict[];
}

/** Runs every golden case of the package. */
export async function verify(session: Session): Promise<Verdict> {
  const { folder, manifest } = session.files;
  const path = join(folder, GOLDEN);
  const document = session.files.readJson(GOLDEN);
  if (document === undefined) {
    throw new GptossError(`${path}: no such file; gptoss-onnx validate --write-golden writes it`);
  }
  const golden = parseGolden(document, path, session.vocab);
  const begin = performance.now();
  const cases: CaseVerdict[] = [];
  for (const entry of golden.cases)
    cases.push(await verifyCase(session, entry, golden.sampled_indices));
  return {
    format: "gptoss-onnx-verdict",
    format_version: 1,
    passed: cases.length > 0 && cases.every((entry) => entry.passed),
    client: "node",
    runtime: `onnxruntime ${RUNTIME_VERSION}`,
    package: folder,
    target: manifest.target,
    kernels: session.kernels,
    activations: session.activations,
    limit: LIMIT,
    seconds: (performance.now() - begin) / 1000,
    cases,
  };
}

async function verifyCase(
  session: Session,
  golden: GoldenCase,
  sampled: number[],
): Promise<CaseVerdict> {
  const differences = await compareLogits(session, golden, sampled);
  const equal = await countEqual(session, golden);
  const { name, positions, greedy } = golden;
  const { max_abs, logsumexp_abs } = differences;
  return {
    name,
    passed: max_abs <= LIMIT && logsumexp_abs <= LIMIT && equal === greedy.length, // false for NaN
    positions: positions.length,
    max_abs,
    logsumexp_abs,
    greedy_tokens: greedy.length,
    greedy_equal: equal,
    note: "",
  };
}

/** Returns the largest differences of logits and of their logsumexp, NaN where one is. */
async function compareLogits(session: Session, golden: GoldenCase, sampled: number[]) {
  const { token_ids, positions, top_indices, top_logits, sampled_logits, logsumexp } = golden;
  const logits = await session.forward(token_ids, session.newCache(token_ids.length), positions);
  let [max_abs, logsumexp_abs] = [0, 0];
  for (let p = 0; p < positions.length; p += 1) {
    const here = logits.subarray(p * session.vocab, (p + 1) * session.vocab);
    const compare = (indices: number[], expected: number[]): void =>
      indices.forEach(
        (index, i) => (max_abs = Math.max(max_abs, Math.abs(here[index]! - expected[i]!))),
      );
    compare(top_indices[p]!, top_logits[p]!);
    compare(sampled, sampled_logits[p]!);
    const top = largest(here);
    logsumexp_abs = Math.max(
      logsumexp_abs,
      Math.abs(top + Math.log(mass(here, top)) - logsumexp[p]!),
    );
  }
  return { max_abs, logsumexp_abs };
}

/** Returns how many tokens of the greedy continuation are equal before the first that differs. */
async function countEqual(session: Session, { token_ids, greedy }: GoldenCase): Promise<number> {
  if (greedy.length === 0) return 0;
  const generation = session.generate(token_ids, {
    maxNewTokens: greedy.length,
    sampling: { stopTokens: [] },
  });
  let equal = 0;
  for await (const token of generation) {
    if (token !== greedy[equal]) break;
    equal += 1;
  }
  return equal;
}
