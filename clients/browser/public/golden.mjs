/** Golden vectors: runs the cases of `golden.json` and says whether the package computes here what it should. */
import { Cache } from "./session.mjs";
import { GREEDY } from "./sampling.mjs";

const LIMIT = 1e-3; // of logits and their logsumexp

/**
 * Yield the verdict of each case.
 * @param {import("./session.mjs").Session} session
 * @param {{sampled_indices: number[], cases: {name: string, token_ids: number[], positions: number[], greedy: number[],
 *   top_indices: number[][], top_logits: number[][], sampled_logits: number[][], logsumexp: number[]}[]}} golden
 */
export async function* runCases(session, golden) {
  for (const one of golden.cases) {
    const cache = new Cache(session.manifest, one.token_ids.length);
    const rows = await session.forward(one.token_ids, cache, one.positions);
    let [maxAbs, logsumexpAbs, equal] = [0, 0, 0];
    rows.forEach((logits, i) => {
      const top = one.top_indices[i].map((id, j) => Math.abs(logits[id] - one.top_logits[i][j]));
      const sampled = golden.sampled_indices.map((id, j) => Math.abs(logits[id] - one.sampled_logits[i][j]));
      maxAbs = Math.max(maxAbs, ...top, ...sampled); // NaN stays NaN, which no limit admits
      logsumexpAbs = Math.max(logsumexpAbs, Math.abs(logsumexp(logits) - one.logsumexp[i]));
    });
    const limits = { most: one.greedy.length, stopTokens: [] };
    let note = "";
    for await (const { token } of session.generate(one.token_ids, GREEDY, limits)) {
      if (token !== one.greedy[equal]) {
        note = `greedy token ${equal} is ${token}, expected ${one.greedy[equal]}`;
        break;
      }
      equal++;
    }
    const passed = maxAbs <= LIMIT && logsumexpAbs <= LIMIT && equal === one.greedy.length;
    yield { name: one.name, passed, positions: rows.length, max_abs: maxAbs, logsumexp_abs: logsumexpAbs,
      greedy_tokens: one.greedy.length, greedy_equal: equal, note }; // prettier-ignore
  }
}

/**
 * Return the verdict on all cases, as every client words it.
 * @param {import("./package.mjs").Manifest} manifest @param {string} runtime @param {string} place  of the package
 * @param {{passed: boolean}[]} cases @param {number} seconds
 */
export function verdict(manifest, runtime, place, cases, seconds) {
  const kernels = manifest.target === "ort" ? "contrib" : "portable";
  return { format: "gptoss-onnx-verdict", format_version: 1, passed: cases.every((one) => one.passed),
    client: "browser", runtime, package: place, target: manifest.target, kernels, activations: "exact", limit: LIMIT,
    seconds, cases };
}

/** @param {Float32Array} logits */
function logsumexp(logits) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}
