/** Page: the controls, and the calls to the worker that does the work. */

const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);

/**
 * Call a method of the worker; passes on what it reports and returns its result. Aborting the signal ends it early.
 * @param {string} method @param {object | null} argument @param {(report: any) => void} onReport
 * @param {AbortSignal} [signal] @returns {Promise<any>}
 */
export function call(method, argument, onReport, signal) {
  const { port1, port2 } = new MessageChannel();
  signal?.addEventListener("abort", () => port1.postMessage("stop"));
  return new Promise((resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(`worker.mjs: ${message ?? "not loaded; is npm ci done?"}`));
    port1.onmessage = ({ data }) => {
      if ("report" in data) onReport(data.report);
      else if ("error" in data) reject(new Error(data.error));
      else resolve(data.result);
    };
    worker.postMessage({ method, argument }, [port2]);
  });
}

/** Show what the page is doing, and its error; do nothing else meanwhile.
 * @param {"loading" | "generating" | "verifying"} state @param {() => Promise<void>} action */
async function run(state, action) {
  const show = (/** @type {string} */ now) => {
    document.body.dataset.state = now;
    at("generate").disabled = at("verify").disabled = now !== "ready";
    at("stop").disabled = now !== "generating";
  };
  show(state);
  at("error").textContent = "";
  try {
    await action();
    show("ready");
  } catch (error) {
    at("error").textContent = error.message;
    show(state === "loading" ? "failed" : "ready");
    if (state === "loading") at("facts").textContent = "No package is loaded.";
  }
}

async function load() {
  /** @type {Record<string, any>} */
  const rows = {};
  const { manifest, bytes, text, runtime } = await call("load", null, ({ what, done, total }) => {
    const row = (rows[what] ??= at("progress").appendChild(at("row").content.firstElementChild.cloneNode(true)));
    const [label, bar] = row.children;
    label.textContent = `${what} ${total ? `${megabytes(done)} of ${megabytes(total)}` : ""}`;
    if (total) [bar.max, bar.value] = [total, done];
  });
  at("progress").replaceChildren();
  const { num_hidden_layers: layers, num_local_experts: experts } = manifest.model;
  const facts = [`${layers} layers`, `${experts} experts`, `${megabytes(bytes)} of weights`, manifest.target, runtime];
  at("facts").textContent = facts.join(" · ");
  if (!text) at("prompt").placeholder = "Token ids, such as 11 29 3: this package has no tokenizer.json";
}

async function generate() {
  const { seed, most, ...values } = Object.fromEntries(new FormData(at("form")));
  const numbers = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]));
  const sampling = { ...numbers, seed: seed === "" ? null : Number(seed) };
  const controller = new AbortController();
  at("stop").onclick = () => controller.abort();
  at("text").textContent = at("speed").textContent = "";
  const argument = { prompt: at("prompt").value, most: Number(most), sampling };
  const onReport = (/** @type {any} */ { fresh, tokens, perSecond }) => {
    at("text").append(fresh);
    at("speed").textContent = `${tokens} tokens · ${perSecond.toFixed(1)} tokens/s`;
  };
  const { finish_reason: finish, timings } = await call("generate", argument, onReport, controller.signal);
  const prefill = timings.prefill_seconds.toFixed(2);
  at("speed").textContent += ` · prompt of ${timings.prompt_tokens} in ${prefill} s · ${finish}`;
}

async function verify() {
  at("cases").replaceChildren();
  at("verified").textContent = "Running …";
  const verdict = await call("verify", null, ({ name, done, of }) => {
    at("verified").textContent = `${done} of ${of} cases: ${name}`;
  });
  for (const one of verdict.cases) {
    const greedy = `${one.greedy_equal} of ${one.greedy_tokens}`;
    const row = at("cases").insertRow();
    const cells = [one.name, one.positions, one.max_abs.toExponential(1), greedy, one.passed ? "passed" : "FAILED"];
    for (const cell of cells) row.insertCell().textContent = cell;
  }
  at("verified").textContent = `${verdict.passed ? "Passed" : "FAILED"} in ${verdict.seconds.toFixed(1)} s`;
  at("verified").dataset.passed = verdict.passed;
  at("verdict").textContent = JSON.stringify(verdict, null, 2);
  at("result").hidden = false;
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;

at("form").onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  run("generating", generate);
};
at("verify").onclick = () => run("verifying", verify);
run("loading", load);
