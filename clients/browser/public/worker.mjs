/** Worker: holds the session, so that the page stays responsive while ONNX Runtime computes. */
import { env } from "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Tokenizer } from "/node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import { ClientError, expect, messageOf } from "./errors.mjs";
import { verify } from "./golden.mjs";
import { checkGolden } from "./golden-file.mjs";
import { weightBytes } from "./manifest.mjs";
import { fetchGolden, fetchManifest, fetchStopTokens, fetchTokenizer } from "./package.mjs";
import { GREEDY } from "./sampling.mjs";
import { Session } from "./session.mjs";
import { textStream } from "./text.mjs";

const FOLDER = new URL("package/", import.meta.url);
const RUNTIME = `onnxruntime-web ${env.versions.web}`;

/**
 * @typedef {(report: object) => void} Report
 * @typedef {{prompt: string | number[], most: number, sampling?:
 *   import("./sampling.mjs").Sampling}} Request
 */

/** @type {Session | undefined} */
let session;
/** @type {Tokenizer | null} */
let tokenizer = null;
/** @type {number[]} */
let stopTokens = [];
let busy = false; // with a method
let stopped = false; // by the page

/**
 * What the page may ask for, one at a time; each reports as it goes and returns a result.
 * @type {Record<string, (argument: any, report: Report) => Promise<object>>}
 */
const methods = { load, generate, verify: verifyPackage };

/** @param {unknown} _ @param {Report} report */
async function load(_, report) {
  /** @type {import("./fetch.mjs").OnProgress} */
  const onProgress = (what, done, total) => report({ what, done, total });
  const manifest = await fetchManifest(FOLDER);
  const document = await fetchTokenizer(manifest, FOLDER, onProgress);
  if (document) tokenizer = withTokenizer("read it", () => new Tokenizer(document, {}));
  stopTokens = await fetchStopTokens(manifest, FOLDER);
  session = await Session.open(manifest, FOLDER, onProgress);
  return {
    layers: manifest.cache.length,
    longest: manifest.longest,
    bytes: weightBytes(manifest),
    target: manifest.target,
    tokenizer: tokenizer !== null,
    stops: stopTokens.length,
    runtime: `${RUNTIME} · threads: ${env.wasm.numThreads}`,
  };
}

/** @param {Request} request @param {Report} report */
async function generate({ prompt, most, sampling = GREEDY }, report) {
  const ids = typeof prompt === "string" ? toTokens(prompt) : prompt;
  const toFresh = textStream(toText);
  const tokens = [];
  let text = "";
  let finish = "";
  const begin = performance.now();
  let first = begin; // when the first token came
  stopped = false;
  for await (const step of loaded().generate(ids, sampling, { most, stopTokens })) {
    if (tokens.push(step.token) === 1) first = performance.now();
    const fresh = withTokenizer("decode", () => toFresh(step.token, step.finish !== null));
    text += fresh;
    finish = step.finish ?? "stopped";
    report({ fresh, tokens: tokens.length, perSecond: rate(tokens.length, first) });
    await messages(); // a call of the graph blocks the worker, and "stop" is a message
    if (stopped) break;
  }
  const timings = {
    prompt_tokens: ids.length,
    prefill_seconds: (first - begin) / 1000,
    new_tokens: tokens.length,
    decode_seconds: (performance.now() - first) / 1000,
    decode_tokens_per_second: rate(tokens.length, first),
  };
  return { tokens, text, finish_reason: finish, timings };
}

/** @param {unknown} _ @param {Report} report */
async function verifyPackage(_, report) {
  const golden = checkGolden(await fetchGolden(FOLDER), loaded().vocab);
  return verify(loaded(), golden, { runtime: RUNTIME, package: FOLDER.pathname }, report);
}

function loaded() {
  if (!session) throw new ClientError("worker: found no package, expected one that is loaded");
  return session;
}

/**
 * Return the tokens a second after the first one.
 * @param {number} tokens
 * @param {number} first  milliseconds
 */
function rate(tokens, first) {
  return tokens > 1 ? (1000 * (tokens - 1)) / (performance.now() - first) : 0;
}

/** @param {string} text */
function toTokens(text) {
  const known = tokenizer;
  if (known) return withTokenizer("encode the prompt", () => known.encode(text).ids);
  const ids = text.split(/[\s,]+/).filter(Boolean);
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  expect(
    "prompt",
    wrong,
    wrong === undefined,
    "token ids, because the package has no tokenizer.json",
  );
  return ids.map(Number);
}

/** @param {number[]} ids */
function toText(ids) {
  if (!tokenizer) return `${ids.join(" ")} `;
  return tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
}

/**
 * Return what work of the tokenizer returns. Its patterns are a stranger's, and some take forever:
 * the page ends this worker if the work does.
 * @template T
 * @param {string} what
 * @param {() => T} work
 */
function withTokenizer(what, work) {
  postMessage({ deadline: `tokenizer.json: cannot ${what} in time` });
  try {
    return work();
  } catch (error) {
    throw new ClientError(
      `tokenizer.json: the tokenizer library cannot ${what} (${messageOf(error)})`,
    );
  } finally {
    postMessage({ deadline: null });
  }
}

/** Let messages that have arrived be handled, without the milliseconds that timers wait. */
function messages() {
  const { port1, port2 } = new MessageChannel();
  port2.postMessage(null);
  return new Promise((resolve) => {
    port1.onmessage = resolve;
  });
}

/**
 * Run a method and post its result, or its error as one line.
 * @param {string} method
 * @param {unknown} argument
 */
async function answer(method, argument) {
  if (busy) {
    postMessage({ error: "worker: found a second request, expected one at a time" });
    return;
  }
  busy = true;
  try {
    postMessage({ result: await methods[method](argument, (report) => postMessage({ report })) });
  } catch (error) {
    postMessage({ error: messageOf(error) });
  } finally {
    busy = false;
  }
}

addEventListener("message", ({ data: { method, argument } }) => {
  if (method === "stop") stopped = true;
  else answer(method, argument);
});
