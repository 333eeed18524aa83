/** Golden vectors: runs the cases of `golden.json` and says whether the package computes here what it should. */
import { GREEDY } from "./sampling.mjs";
import { Cache } from "./session.mjs";

/** @typedef {import("./session.mjs").Session} Session
 * @typedef {{name: string, token_ids: number[], positions: number[], top_indices: number[][], top_logits: number[][],
 *   sampled_logits: number[][], logsumexp: number[], greedy: number[]}} Case */

const LIMIT = 1e-3; // of logits and their logsumexp

/** Run every case, reporting each that is done; return the verdict, as every client words it.
 * @param {Session} session @param {{sampled_indices: number[], cases: Case[]}} golden
 * @param {{runtime: string, package: string}} names @param {(report: object) => void} report */
export async function verify(session, golden, names, report) {
  const begin = performance.now();
  const cases = [];
  for (const one of golden.cases) {
    cases.push(await runCase(session, one, golden.sampled_indices));
    report(cases[cases.length - 1]);
  }
  const target = session.manifest.target;
  return { format: "gptoss-onnx-verdict", format_version: 1, passed: cases.every((one) => one.passed),
    client: "browser", ...names, target, kernels: target === "ort" ? "contrib" : "portable", activations: "exact",
    limit: LIMIT, seconds: (performance.now() - begin) / 1000, cases };
}

/** @param {Session} session @param {Case} one @param {number[]} sampledIndices */
async function runCase(session, one, sampledIndices) {
  const rows = await session.forward(one.token_ids, new Cache(session.manifest, one.token_ids.length), one.positions);
  let [maxAbs, logsumexpAbs, equal, note] = [0, 0, 0, ""];
  rows.forEach((logits, i) => {
    const top = one.top_indices[i].map((id, j) => Math.abs(logits[id] - one.top_logits[i][j]));
    const sampled = sampledIndices.map((id, j) => Math.abs(logits[id] - one.sampled_logits[i][j]));
    maxAbs = Math.max(maxAbs, ...top, ...sampled); // NaN stays NaN, which no limit admits
    logsumexpAbs = Math.max(logsumexpAbs, Math.abs(logsumexp(logits) - one.logsumexp[i]));
  });
  for await (const { token } of session.generate(one.token_ids, GREEDY, { most: one.greedy.length, stopTokens: [] })) {
    if (token !== one.greedy[equal]) {
      note = `greedy token ${equal} is ${token}, expected ${one.greedy[equal]}`;
      break;
    }
    equal++;
  }
  const passed = maxAbs <= LIMIT && logsumexpAbs <= LIMIT && equal === one.greedy.length;
  return { name: one.name, passed, positions: rows.length, max_abs: maxAbs, logsumexp_abs: logsumexpAbs,
    greedy_tokens: one.greedy.length, greedy_equal: equal, note };
}

function logsumexp(/** @type {Float32Array} */ logits) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}
