/** Worker: holds the session, so that the page stays responsive while ONNX Runtime computes. */
import { env } from "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Tokenizer } from "/node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import { verify } from "./golden.mjs";
import { checkManifest, expect, fetchJson } from "./package.mjs";
import { GREEDY } from "./sampling.mjs";
import { Session } from "./session.mjs";
import { textStream } from "./text.mjs";

const FOLDER = new URL("package/", import.meta.url);
const RUNTIME = `onnxruntime-web ${env.versions.web}`;

/** @type {Session} */
let session;
/** @type {Tokenizer | null} */
let tokenizer = null;
/** @type {number[]} */
let stopTokens = [];
let stopped = false; // by the page

/** What the page may ask for, one at a time; each reports as it goes and returns a result.
 * @type {Record<string, (argument: any, report: (report: object) => void) => Promise<object>>} */
const methods = {
  async load(_, report) {
    const manifest = await fetchJson(new URL("manifest.json", FOLDER));
    const bytes = checkManifest(manifest);
    /** @type {import("./package.mjs").OnProgress} */
    const onProgress = (what, done, total) => report({ what, done, total });
    if (manifest.tokenizer_files.includes("tokenizer.json"))
      tokenizer = new Tokenizer(await fetchJson(new URL("tokenizer.json", FOLDER), { onProgress }), {});
    const config = await fetchJson(new URL("generation_config.json", FOLDER), { instead: "{}" });
    stopTokens = [config.eos_token_id ?? manifest.model.eos_token_id ?? []].flat();
    session = await Session.open(manifest, FOLDER, onProgress);
    return { manifest, bytes, text: tokenizer !== null, runtime: `${RUNTIME} · threads: ${env.wasm.numThreads}` };
  },

  /** @param {{prompt: string | number[], most: number, sampling?: import("./sampling.mjs").Sampling}} request */
  async generate({ prompt, most, sampling = GREEDY }, report) {
    const ids = typeof prompt === "string" ? toTokens(prompt) : prompt;
    const toFresh = textStream(toText);
    const tokens = [];
    const begin = performance.now();
    let [first, finish, text] = [begin, "", ""];
    stopped = false;
    for await (const step of session.generate(ids, sampling, { most, stopTokens })) {
      if (tokens.push(step.token) === 1) first = performance.now();
      const fresh = toFresh(step.token, step.finish !== null);
      text += fresh;
      finish = step.finish ?? "stopped";
      report({ fresh, tokens: tokens.length, perSecond: (1000 * (tokens.length - 1)) / (performance.now() - first) });
      await messages(); // a call of the graph blocks the worker, and "stop" is a message
      if (stopped) break;
    }
    const decode = (performance.now() - first) / 1000;
    const timings = { prompt_tokens: ids.length, prefill_seconds: (first - begin) / 1000, new_tokens: tokens.length,
      decode_seconds: decode, decode_tokens_per_second: (tokens.length - 1) / decode };
    return { tokens, text, finish_reason: finish, timings };
  },

  async verify(_, report) {
    const golden = await fetchJson(new URL("golden/golden.json", FOLDER));
    return verify(session, golden, { runtime: RUNTIME, package: FOLDER.pathname }, report);
  },
};

function toTokens(/** @type {string} */ text) {
  if (tokenizer) return tokenizer.encode(text).ids;
  const ids = text.split(/[\s,]+/).filter(Boolean);
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  expect("prompt", wrong, wrong === undefined, "token ids, because the package has no tokenizer.json");
  return ids.map(Number);
}

function toText(/** @type {number[]} */ ids) {
  if (!tokenizer) return `${ids.join(" ")} `;
  return tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
}

/** Let messages that have arrived be handled, without the milliseconds that timers wait. */
function messages() {
  const { port1, port2 } = new MessageChannel();
  port2.postMessage(null);
  return new Promise((resolve) => (port1.onmessage = resolve));
}

addEventListener("message", async ({ data: { method, argument } }) => {
  if (method === "stop") return (stopped = true);
  try {
    postMessage({ result: await methods[method](argument, (report) => postMessage({ report })) });
  } catch (error) {
    postMessage({ error: error.message });
  }
});
