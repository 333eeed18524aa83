/** Golden file: checks `golden/golden.json`, which a stranger may have written. */
import { expect } from "./errors.mjs";

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {number[]} token_ids  of the prompt
 * @property {number[]} positions  rising; the next four lists have an entry for each
 * @property {number[][]} top_indices  token ids
 * @property {number[][]} top_logits  of those
 * @property {number[][]} sampled_logits  of the document's `sampled_indices`
 * @property {number[]} logsumexp
 * @property {number[]} greedy  how the prompt continues
 *
 * @typedef {{sampled_indices: number[], cases: Case[]}} Golden
 */

const MOST_CASES = 1000;
const LONGEST_NAME = 200; // characters

/**
 * Check that golden vectors make sense for a vocabulary; throw a ClientError otherwise.
 * @param {any} golden  of the JSON document
 * @param {number} vocab
 * @returns {Golden}
 */
export function checkGolden(golden, vocab) {
  const { format, format_version: version, sampled_indices: sampled, cases } = golden ?? {};
  expect("golden.json: format", format, format === "gptoss-onnx-golden", "gptoss-onnx-golden");
  expect("golden.json: format_version", version, version === 1, "1");
  checkTokens("sampled_indices", sampled, vocab);
  const listed = Array.isArray(cases) && cases.length > 0 && cases.length <= MOST_CASES;
  expect("golden.json: cases", cases, listed, `a list of 1 to ${MOST_CASES}`);
  for (const [i, one] of cases.entries()) checkCase(`cases[${i}]`, one, sampled.length, vocab);
  return golden;
}

/**
 * @param {string} where
 * @param {any} one
 * @param {number} samples  tokens sampled at each position
 * @param {number} vocab
 */
function checkCase(where, one, samples, vocab) {
  const name = one?.name;
  const short = typeof name === "string" && name.length <= LONGEST_NAME;
  expect(`golden.json: ${where}.name`, name, short, "a short text");
  checkTokens(`${where}.token_ids`, one.token_ids, vocab);
  checkTokens(`${where}.greedy`, one.greedy, vocab);

  let before = -1;
  checkList(`${where}.positions`, one.positions, null, "rising places in the prompt", (place) => {
    const fits = Number.isInteger(place) && place > before && place < one.token_ids.length;
    before = place;
    return fits;
  });
  const count = one.positions.length;
  checkNumbers(`${where}.logsumexp`, one.logsumexp, count);
  for (const key of ["top_indices", "top_logits", "sampled_logits"])
    checkList(`${where}.${key}`, one[key], count, "lists", Array.isArray);
  for (let at = 0; at < count; at++) {
    checkTokens(`${where}.top_indices[${at}]`, one.top_indices[at], vocab);
    checkNumbers(`${where}.top_logits[${at}]`, one.top_logits[at], one.top_indices[at].length);
    checkNumbers(`${where}.sampled_logits[${at}]`, one.sampled_logits[at], samples);
  }
}

/** @param {string} where @param {unknown} list @param {number} vocab */
function checkTokens(where, list, vocab) {
  const fits = (/** @type {any} */ id) => Number.isInteger(id) && id >= 0 && id < vocab;
  checkList(where, list, null, `token ids, 0 to ${vocab - 1}`, fits);
}

/** @param {string} where @param {unknown} list @param {number} length */
function checkNumbers(where, list, length) {
  checkList(where, list, length, "numbers", Number.isFinite);
}

/**
 * @param {string} where
 * @param {unknown} list
 * @param {number | null} length  null: at least 1
 * @param {string} entries  what they should be
 * @param {(entry: any) => boolean} fits
 */
function checkList(where, list, length, entries, fits) {
  const found = Array.isArray(list) ? list : [];
  const holds = length === null ? found.length > 0 : found.length === length;
  expect(`golden.json: ${where}`, list, holds, `a list of ${length ?? "1 or more"} ${entries}`);
  const wrong = found.findIndex((entry) => !fits(entry));
  expect(`golden.json: ${where}[${wrong}]`, found[wrong], wrong === -1, entries);
}
