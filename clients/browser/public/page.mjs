/** Page: the controls, and the calls to the worker that does the work. */

const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);

/** Call a method of the worker, one at a time; pass on what it reports and return its result.
 * @param {string} method @param {object | null} argument @param {(report: any) => void} onReport */
export function call(method, argument, onReport) {
  worker.postMessage({ method, argument });
  return new Promise((/** @type {(result: any) => void} */ resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(`worker.mjs: ${message ?? "not loaded; is npm ci done?"}`));
    worker.onmessage = ({ data }) => {
      if ("report" in data) onReport(data.report);
      else if ("error" in data) reject(new Error(data.error));
      else resolve(data.result);
    };
  });
}

/** Show what the page is doing, and its error; do nothing else meanwhile.
 * @param {"loading" | "generating" | "verifying"} state @param {() => Promise<void>} action */
async function run(state, action) {
  const show = (/** @type {string} */ now, error = "") => {
    document.body.dataset.state = now;
    at("error").textContent = error;
    at("generate").disabled = at("verify").disabled = now !== "ready";
    at("stop").disabled = now !== "generating";
  };
  show(state);
  const fallback = state === "loading" ? "failed" : "ready";
  await action().then(() => show("ready"), ({ message }) => show(fallback, message));
}

async function load() {
  const { manifest, bytes, text, runtime } = await call("load", null, ({ what, done, total }) => {
    at("what").textContent = `${what} ${total ? `${megabytes(done)} of ${megabytes(total)}` : "…"}`;
    at("bar").value = total ? done / total : 1;
  });
  const { num_hidden_layers: layers, num_local_experts: experts } = manifest.model;
  const facts = [`${layers} layers`, `${experts} experts`, `${megabytes(bytes)} of weights`, manifest.target, runtime];
  at("facts").textContent = facts.join(" · ");
  if (!text) at("prompt").placeholder = "Token ids, such as 11 29 3: this package has no tokenizer.json";
}

async function generate() {
  const entries = [...new FormData(at("form"))]; // of these, only the seed may be empty
  const numbers = entries.map(([name, value]) => [name, value === "" ? null : Number(value)]);
  const { most, ...sampling } = Object.fromEntries(numbers);
  at("text").textContent = at("speed").textContent = "";
  const request = { prompt: at("prompt").value, most, sampling };
  const { finish_reason: finish, timings } = await call("generate", request, ({ fresh, tokens, perSecond }) => {
    at("text").append(fresh);
    at("speed").textContent = `${tokens} tokens · ${perSecond.toFixed(1)} tokens/s`;
  });
  const prefill = timings.prefill_seconds.toFixed(2);
  at("speed").textContent += ` · prompt of ${timings.prompt_tokens} in ${prefill} s · ${finish}`;
}

async function verify() {
  at("cases").textContent = at("verdict").textContent = "";
  at("verified").textContent = "Running …";
  const verdict = await call("verify", null, (one) => {
    const greedy = `${one.greedy_equal} of ${one.greedy_tokens}`;
    const row = at("cases").insertRow();
    const cells = [one.name, one.positions, one.max_abs.toExponential(1), greedy, one.passed ? "passed" : "FAILED"];
    for (const cell of cells) row.insertCell().textContent = cell;
  });
  at("verified").textContent = `${verdict.passed ? "Passed" : "FAILED"} in ${verdict.seconds.toFixed(1)} s`;
  at("verified").dataset.passed = verdict.passed;
  at("verdict").textContent = JSON.stringify(verdict, null, 2);
}

const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;

at("form").onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  run("generating", generate);
};
at("stop").onclick = () => worker.postMessage({ method: "stop" });
at("verify").onclick = () => run("verifying", verify);
run("loading", load);
