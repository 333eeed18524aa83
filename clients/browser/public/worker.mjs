/** Worker: holds the session, so that the page stays responsive while ONNX Runtime computes. */
import { env } from "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Tokenizer } from "/node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import { runCases, verdict } from "./golden.mjs";
import { checkManifest, expect, fetchJson } from "./package.mjs";
import { Session } from "./session.mjs";
import { TextStream } from "./text.mjs";

/** @typedef {{prompt: string | number[], most: number, sampling: import("./sampling.mjs").Sampling}} Request */

const FOLDER = new URL("package/", import.meta.url);
const RUNTIME = `onnxruntime-web ${env.versions.web}`;

/** @type {Session} */
let session;
/** @type {Tokenizer | null} */
let tokenizer = null;
/** @type {number[]} */
let stopTokens = [];

/** What the page may ask for; each reports as it goes and returns a result.
 * @type {Record<string, (argument: any, report: (report: object) => void, signal: AbortSignal) => Promise<object>>} */
const methods = {
  async load(_, report) {
    const manifest = await fetchJson(new URL("manifest.json", FOLDER));
    const bytes = checkManifest(manifest);
    /** @type {import("./package.mjs").OnProgress} */
    const onProgress = (what, done, total) => report({ what, done, total });
    if (manifest.tokenizer_files.includes("tokenizer.json"))
      tokenizer = new Tokenizer(await fetchJson(new URL("tokenizer.json", FOLDER), { onProgress }), {});
    const config = await fetchJson(new URL("generation_config.json", FOLDER), { instead: {} });
    stopTokens = [config.eos_token_id ?? manifest.model.eos_token_id ?? []].flat();
    session = await Session.open(manifest, FOLDER, onProgress);
    return { manifest, bytes, text: tokenizer !== null, runtime: `${RUNTIME} · threads: ${env.wasm.numThreads}` };
  },

  /** @param {Request} request */
  async generate({ prompt, most, sampling }, report, signal) {
    const ids = typeof prompt === "string" ? toTokens(prompt) : prompt;
    const stream = new TextStream(toText);
    const begin = performance.now();
    const tokens = [];
    let [first, finish, text] = [begin, "stopped", ""];
    for await (const step of session.generate(ids, sampling, { most, stopTokens, signal })) {
      if (tokens.push(step.token) === 1) first = performance.now();
      const fresh = stream.push(step.token) + (step.finish ? stream.finish() : "");
      finish = step.finish ?? finish;
      text += fresh;
      report({ fresh, tokens: tokens.length, perSecond: (1000 * (tokens.length - 1)) / (performance.now() - first) });
      await messages(); // a call of the graph blocks the worker, and "stop" is a message
    }
    const decode = (performance.now() - first) / 1000;
    const timings = { prompt_tokens: ids.length, prefill_seconds: (first - begin) / 1000, new_tokens: tokens.length,
      decode_seconds: decode, decode_tokens_per_second: (tokens.length - 1) / decode };
    return { tokens, text, finish_reason: finish, timings };
  },

  async verify(_, report) {
    const golden = await fetchJson(new URL("golden/golden.json", FOLDER));
    const begin = performance.now();
    const cases = [];
    for await (const one of runCases(session, golden)) {
      cases.push(one);
      report({ name: one.name, done: cases.length, of: golden.cases.length });
    }
    return verdict(session.manifest, RUNTIME, FOLDER.pathname, cases, (performance.now() - begin) / 1000);
  },
};

/** @param {string} text */
function toTokens(text) {
  if (tokenizer) return tokenizer.encode(text).ids;
  const ids = text.split(/[\s,]+/).filter(Boolean);
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  expect("prompt", wrong, wrong === undefined, "token ids, because the package has no tokenizer.json");
  return ids.map(Number);
}

/** @param {number[]} ids */
function toText(ids) {
  if (!tokenizer) return ids.map((id) => `${id} `).join("");
  const options = { skip_special_tokens: true, clean_up_tokenization_spaces: false };
  return ids.length > 0 ? tokenizer.decode(ids, options) : ""; // the library refuses an empty list
}

/** Let messages that have arrived be handled, without the milliseconds that timers wait. */
const messages = () =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(null);
  });

addEventListener("message", async ({ data: { method, argument }, ports: [port] }) => {
  const controller = new AbortController();
  port.onmessage = () => controller.abort();
  try {
    const result = await methods[method](argument, (report) => port.postMessage({ report }), controller.signal);
    port.postMessage({ result });
  } catch (error) {
    port.postMessage({ error: error.message });
  }
});
