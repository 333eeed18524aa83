/**
 * Golden vectors: runs the cases of `golden.json` and says whether the package computes here what
 * it should.
 */
import { GREEDY } from "./sampling.mjs";
import { Cache } from "./session.mjs";

/**
 * @typedef {import("./golden-file.mjs").Golden} Golden
 * @typedef {import("./golden-file.mjs").Case} Case
 * @typedef {import("./session.mjs").Session} Session
 */

const LIMIT = 1e-3; // of logits and their logsumexp

/**
 * Run every case, reporting each that is done; return the verdict, as every client words it.
 * @param {Session} session
 * @param {Golden} golden  checked
 * @param {{runtime: string, package: string}} names
 * @param {(report: object) => void} report
 */
export async function verify(session, golden, names, report) {
  const begin = performance.now();
  const cases = [];
  for (const one of golden.cases) {
    const result = await runCase(session, one, golden.sampled_indices);
    cases.push(result);
    report(result);
  }
  const target = session.manifest.target;
  return {
    format: "gptoss-onnx-verdict",
    format_version: 1,
    passed: cases.every((one) => one.passed),
    client: "browser",
    ...names,
    target,
    kernels: target === "ort" ? "contrib" : "portable",
    activations: "exact",
    limit: LIMIT,
    seconds: (performance.now() - begin) / 1000,
    cases,
  };
}

/** @param {Session} session @param {Case} one @param {number[]} sampledIndices */
async function runCase(session, one, sampledIndices) {
  const cache = new Cache(session.manifest, one.token_ids.length);
  const answers = await session.forward(one.token_ids, cache, one.positions);
  let maxAbs = 0;
  let logsumexpAbs = 0;
  for (const [i, logits] of answers.entries()) {
    const top = largestDifference(logits, one.top_indices[i], one.top_logits[i]);
    const sampled = largestDifference(logits, sampledIndices, one.sampled_logits[i]);
    maxAbs = Math.max(maxAbs, top, sampled); // NaN stays NaN, which no limit admits
    logsumexpAbs = Math.max(logsumexpAbs, Math.abs(logsumexp(logits) - one.logsumexp[i]));
  }
  const { equal, note } = await compareGreedy(session, one);
  return {
    name: one.name,
    passed: maxAbs <= LIMIT && logsumexpAbs <= LIMIT && equal === one.greedy.length,
    positions: answers.length,
    max_abs: maxAbs,
    logsumexp_abs: logsumexpAbs,
    greedy_tokens: one.greedy.length,
    greedy_equal: equal,
    note,
  };
}

/**
 * Return how many greedy tokens agree before the first that differs, and a note on that one.
 * @param {Session} session
 * @param {Case} one
 */
async function compareGreedy(session, one) {
  let equal = 0;
  for await (const { token } of session.generate(one.token_ids, GREEDY, {
    most: one.greedy.length,
    stopTokens: [],
  })) {
    if (token !== one.greedy[equal])
      return { equal, note: `greedy token ${equal} is ${token}, expected ${one.greedy[equal]}` };
    equal++;
  }
  return { equal, note: "" };
}

/** @param {Float32Array} logits @param {number[]} indices @param {number[]} expected */
const largestDifference = (logits, indices, expected) =>
  indices.reduce((most, id, i) => Math.max(most, Math.abs(logits[id] - expected[i])), 0);

/** @param {Float32Array} logits */
function logsumexp(logits) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}
