/** The chat page: what a person does, and what is shown of it. */
import { ask, AskError, modelName } from "./answer.mjs";
import { AnswerTurn, userTurn } from "./turn.mjs";

const KEY = "gptoss-onnx-key"; // in the storage of this tab
const NEAR = 80; // pixels from the end: who is there wants to see what comes
const SPEED_EVERY = 400; // milliseconds, so that it can be read

/** @template {HTMLElement} T @param {string} id @returns {T} */
const at = (id) => /** @type {T} */ (document.getElementById(id));

const page = {
  scroll: at("scroll"),
  log: at("log"),
  welcome: at("welcome"),
  error: at("error"),
  state: at("state"),
  speed: at("speed"),
  message: /** @type {HTMLTextAreaElement} */ (at("message")),
  send: /** @type {HTMLButtonElement} */ (at("send")),
  stop: /** @type {HTMLButtonElement} */ (at("stop")),
  settings: at("settings"),
  door: at("door"),
  key: /** @type {HTMLInputElement} */ (at("key")),
};

/** @type {import("./answer.mjs").Message[]} */
let said = [];
/** @type {AbortController | null} */
let running = null;
let model = "";
let isDrawing = false;
let shownSpeed = 0; // when

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  speak();
});
page.message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  speak();
});
page.message.addEventListener("input", fit);
page.stop.addEventListener("click", () => running?.abort());
at("new").addEventListener("click", restart);
at("settings-button").addEventListener("click", () => showSettings(page.settings.hidden));
page.settings.addEventListener("submit", (event) => event.preventDefault());
page.door.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, page.key.value.trim());
  greet();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
greet();

/** Ask for the model's name, and for a key where the server wants one. */
async function greet() {
  page.error.textContent = "";
  try {
    model = await modelName(key());
    at("model").textContent = model;
    document.title = `${model} · gptoss-onnx`;
    page.door.hidden = true;
    page.message.focus();
  } catch (error) {
    fail(error);
  }
}

/** Send what is written, and show the answer while it comes. */
async function speak() {
  const text = page.message.value.trim();
  if (!text || running) return;
  const request = wanted(text);
  if (!request) return;
  const controller = new AbortController();
  running = controller;
  busy(true);
  const question = userTurn(text);
  const turn = new AnswerTurn(model || "Answer");
  page.welcome.hidden = true;
  page.log.append(question, turn.article);
  write("");
  page.scroll.scrollTop = page.scroll.scrollHeight;
  let problem = null;
  try {
    for await (const piece of ask(request, key(), controller.signal)) {
      turn.take(piece);
      show(turn);
    }
  } catch (error) {
    problem = error;
  }
  // Who began a new chat meanwhile has taken all of this away.
  if (running !== controller) return;
  running = null;
  busy(false);
  const stopped = controller.signal.aborted;
  following(() => turn.end(stopped ? "stopped" : problem ? "broken off" : ""));
  if (problem && !stopped) fail(problem);
  if (problem && !stopped && turn.isEmpty) {
    // Nothing was answered: the message goes back to where it can be sent again.
    question.remove();
    turn.article.remove();
    page.welcome.hidden = page.log.childElementCount > 0;
    write(text);
  } else {
    said.push({ role: "user", content: text });
    if (turn.content) said.push({ role: "assistant", content: turn.content });
  }
  page.state.textContent = stopped ? "Stopped" : problem ? "" : "Answered";
}

/** Show an answer with the next picture that the browser draws, however many pieces come before. */
function show(/** @type {AnswerTurn} */ turn) {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    following(() => turn.draw());
    if (performance.now() - shownSpeed < SPEED_EVERY || !running) return;
    shownSpeed = performance.now();
    page.speed.textContent = turn.clock.speed();
  });
}

/**
 * Return the request for an answer, or null where a setting is wrong; the page says which.
 * @param {string} text
 */
function wanted(text) {
  page.error.textContent = "";
  const system = value("system").trim();
  const messages = [...said, { role: "user", content: text }];
  if (system) messages.unshift({ role: "system", content: system });
  /** @type {Record<string, unknown>} */
  const request = { messages };
  if (model) request.model = model;
  if (value("effort")) request.reasoning_effort = value("effort");
  for (const [id, name] of [
    ["temperature", "temperature"],
    ["longest", "max_completion_tokens"],
  ]) {
    const field = /** @type {HTMLInputElement} */ (at(id));
    if (!field.validity.valid) {
      showSettings(true);
      field.focus();
      page.error.textContent = `${field.labels?.[0].innerText.trim()}: ${field.validationMessage}`;
      return null;
    }
    if (field.value) request[name] = field.valueAsNumber;
  }
  return request;
}

/** Begin anew; an answer that is still coming is stopped. */
function restart() {
  const before = running;
  running = null;
  before?.abort();
  said = [];
  page.log.replaceChildren();
  page.welcome.hidden = false;
  page.error.textContent = "";
  page.state.textContent = "";
  busy(false);
  page.message.focus();
}

/** Show what went wrong, in one line. */
function fail(/** @type {unknown} */ error) {
  if (error instanceof AskError && error.status === 401) {
    page.door.hidden = false;
    page.error.textContent = key() ? "The server does not know this API key." : "";
    sessionStorage.removeItem(KEY);
    page.key.focus();
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  page.error.textContent = message.charAt(0).toUpperCase() + message.slice(1);
}

function busy(/** @type {boolean} */ isBusy) {
  const focused = document.activeElement;
  page.send.hidden = isBusy;
  page.stop.hidden = !isBusy;
  // Screen readers wait for the whole answer.
  page.log.setAttribute("aria-busy", String(isBusy));
  if (isBusy) page.state.textContent = "Answering";
  page.speed.textContent = "";
  if (focused === page.stop || focused === page.send) page.message.focus();
}

function showSettings(/** @type {boolean} */ shown) {
  page.settings.hidden = !shown;
  at("settings-button").setAttribute("aria-expanded", String(shown));
  if (shown) page.scroll.scrollTop = 0;
}

function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

function value(/** @type {string} */ id) {
  return /** @type {HTMLInputElement} */ (at(id)).value;
}

function write(/** @type {string} */ text) {
  page.message.value = text;
  fit();
}

/** Let the field be as high as what is written in it. */
function fit() {
  page.message.style.height = "auto";
  page.message.style.height = `${page.message.scrollHeight}px`;
}

/** Do something that makes the page longer, and stay at its end with whoever is there. */
function following(/** @type {() => void} */ change) {
  const { scrollTop, scrollHeight, clientHeight } = page.scroll;
  change();
  if (scrollHeight - scrollTop - clientHeight < NEAR)
    page.scroll.scrollTop = page.scroll.scrollHeight;
}
