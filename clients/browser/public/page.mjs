/**
 * Page: the controls, and the calls to the worker that does the work. What a stranger wrote is
 * shown as text only.
 */

const LONGEST_STEP = 10_000; // milliseconds, of what the worker sets a deadline for

const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
let calling = false;
let ended = false; // the worker, by us

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);

/**
 * Call a method of the worker, one at a time; pass on what it reports and return its result.
 * @param {string} method
 * @param {object | null} argument
 * @param {(report: any) => void} onReport
 * @returns {Promise<any>}
 */
export async function call(method, argument, onReport) {
  if (calling) throw new Error("page: found another request under way, expected one at a time");
  if (ended) throw new Error("page: found its worker ended, expected it to run; reload the page");
  calling = true;
  let timer = 0;
  try {
    return await new Promise((resolve, reject) => {
      worker.onerror = ({ message }) =>
        reject(new Error(`worker.mjs: ${message ?? "not loaded; is npm ci done?"}`));
      worker.onmessage = ({ data }) => {
        if ("report" in data) {
          onReport(data.report);
        } else if ("deadline" in data) {
          clearTimeout(timer);
          if (data.deadline)
            timer = window.setTimeout(() => reject(endWorker(data.deadline)), LONGEST_STEP);
        } else if ("error" in data) {
          reject(new Error(data.error));
        } else {
          resolve(data.result);
        }
      };
      worker.postMessage({ method, argument });
    });
  } finally {
    clearTimeout(timer);
    calling = false;
  }
}

/** End a worker that no message can stop; return the error that says so. @param {string} why */
function endWorker(why) {
  worker.terminate();
  ended = true;
  return new Error(
    `${why}: found no end within ${LONGEST_STEP / 1000} s; reload the page to go on`,
  );
}

/** @param {"loading" | "generating" | "verifying" | "ready" | "failed"} state */
function show(state, error = "") {
  at("error").textContent = error;
  at("generate").disabled = state !== "ready";
  at("verify").disabled = state !== "ready";
  at("stop").disabled = state !== "generating";
  document.body.dataset.state = state; // last: who waits for it finds the rest done
}

/**
 * Show what the page is doing, and its error; do nothing else meanwhile.
 * @param {"loading" | "generating" | "verifying"} state
 * @param {() => Promise<void>} action
 */
async function run(state, action) {
  show(state);
  try {
    await action();
    show("ready");
  } catch (error) {
    show(state === "loading" || ended ? "failed" : "ready", error.message);
  }
}

async function load() {
  const { layers, longest, bytes, target, tokenizer, stops, runtime } = await call(
    "load",
    null,
    (report) => {
      const { what, done, total } = report;
      at("what").textContent =
        `${what} ${total ? `${megabytes(done)} of ${megabytes(total)}` : "…"}`;
      at("bar").value = total ? done / total : 1;
    },
  );
  const facts = [
    `${layers} layers`,
    `up to ${longest} tokens`,
    `${megabytes(bytes)} of weights`,
    target,
    runtime,
  ];
  if (stops === 0) facts.push("no stop tokens: a text ends after the new tokens asked for");
  at("facts").textContent = facts.join(" · ");
  if (!tokenizer)
    at("prompt").placeholder = "Token ids, such as 11 29 3: this package has no tokenizer.json";
}

async function generate() {
  const { most, ...sampling } = numbers(at("form"));
  at("text").textContent = "";
  at("speed").textContent = "";
  const request = { prompt: at("prompt").value, most, sampling };
  const { finish_reason: finish, timings } = await call(
    "generate",
    request,
    ({ fresh, tokens, perSecond }) => {
      at("text").append(fresh);
      at("speed").textContent = `${tokens} tokens · ${perSecond.toFixed(1)} tokens/s`;
    },
  );
  const prefill = timings.prefill_seconds.toFixed(2);
  at("speed").textContent += ` · prompt of ${timings.prompt_tokens} in ${prefill} s · ${finish}`;
}

/**
 * Return the numbers of a form's named inputs: null where one is empty, NaN where it holds
 * something else. Whoever uses them checks them: the page has one way to say what is wrong.
 * @param {HTMLFormElement} form
 * @returns {Record<string, number | null>}
 */
function numbers(form) {
  const inputs = /** @type {HTMLInputElement[]} */ ([...form.querySelectorAll("input[name]")]);
  return Object.fromEntries(
    inputs.map((input) => {
      if (input.value !== "") return [input.name, Number(input.value)];
      return [input.name, input.validity.badInput ? NaN : null];
    }),
  );
}

async function verify() {
  at("cases").textContent = "";
  at("verdict").textContent = "";
  at("verified").textContent = "Running …";
  delete at("verified").dataset.passed;
  try {
    const verdict = await call("verify", null, showCase);
    at("verified").textContent =
      `${verdict.passed ? "Passed" : "FAILED"} in ${verdict.seconds.toFixed(1)} s`;
    at("verified").dataset.passed = verdict.passed;
    at("verdict").textContent = JSON.stringify(verdict, null, 2);
  } catch (error) {
    at("verified").textContent = "Could not run";
    throw error;
  }
}

/** @param {any} one  case of the verdict */
function showCase(one) {
  const greedy = `${one.greedy_equal} of ${one.greedy_tokens}`;
  const row = at("cases").insertRow();
  for (const cell of [one.name, one.positions, one.max_abs.toExponential(1), greedy])
    row.insertCell().textContent = cell;
  const passed = row.insertCell();
  passed.textContent = one.passed ? "passed" : "FAILED";
  passed.dataset.passed = one.passed;
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;

at("form").onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  run("generating", generate);
};
at("stop").onclick = () => worker.postMessage({ method: "stop" });
at("verify").onclick = () => run("verifying", verify);
run("loading", load);
