/** One answer on the page: thoughts, text, and how fast they came. */
import { element, GrowingText } from "./show.mjs";

const FINISHED = {
  length: "cut off: there is no room for more",
  tool_calls: "the model called a tool, and this page has none",
};

/** Return the turn of a person. */
export function userTurn(/** @type {string} */ text) {
  const said = element("div", { class: "text", text });
  said.dir = "auto";
  return element("article", { class: "turn user" }, [element("h2", { text: "You" }), said]);
}

/** An answer while it comes, and afterwards. */
export class AnswerTurn {
  /** @param {string} speaker */
  constructor(speaker) {
    this.text = element("div", { class: "text" });
    this.facts = element("p", { class: "facts" });
    this.summary = element("summary", { text: "Thinking…" });
    this.thoughts = element("div", { class: "thoughts" });
    this.thoughts.dir = "auto";
    this.reasoning = element("details", { class: "reasoning" }, [this.summary, this.thoughts]);
    const parts = [element("h2", { text: speaker }), this.text, this.facts];
    this.article = element("article", { class: "turn answer waiting" }, parts);
    this.growing = new GrowingText(this.text);
    this.content = "";
    this.thought = "";
    this.clock = new Clock();
    this.finish = "";
  }

  /** Take what came; `draw` shows it. */
  take(/** @type {import("./answer.mjs").Piece} */ piece) {
    this.content += piece.content;
    this.thought += piece.reasoning;
    if (piece.content || piece.reasoning) this.clock.count(piece.reasoning !== "");
    if (piece.usage) this.clock.tokens = piece.usage.completion_tokens;
    if (piece.finish) this.finish = piece.finish;
  }

  /** Show what has been taken. */
  draw() {
    if (this.thought && !this.reasoning.parentElement) this.text.before(this.reasoning);
    if (this.thoughts.textContent !== this.thought) this.thoughts.textContent = this.thought;
    if (this.content) this.summary.textContent = this.clock.thinking();
    this.growing.show(this.content);
  }

  /** Say how it went; `note` is a word more, such as that it was stopped. */
  end(/** @type {string} */ note = "") {
    this.article.classList.remove("waiting");
    this.draw();
    if (this.thought) this.summary.textContent = this.clock.thinking();
    const notes = [this.clock.said(), note || FINISHED[this.finish] || ""];
    this.facts.textContent = notes.filter(Boolean).join(" · ");
  }

  get isEmpty() {
    return !this.content && !this.thought;
  }
}

/** When the pieces of an answer came; times are milliseconds. */
class Clock {
  constructor() {
    this.asked = performance.now();
    this.first = 0;
    this.last = 0;
    this.thought = 0; // when the last thought came
    this.pieces = 0;
    /** @type {number | null} */
    this.tokens = null; // what the server counted
  }

  count(/** @type {boolean} */ isThought) {
    this.last = performance.now();
    this.first ||= this.last;
    if (isThought) this.thought = this.last;
    this.pieces += 1;
  }

  thinking() {
    return `Thought for ${seconds(this.thought - this.asked)}`;
  }

  /** Tokens a second since the first one, or "" while there is nothing to count. */
  speed() {
    const gaps = (this.tokens ?? this.pieces) - 1;
    const took = (this.last - this.first) / 1000;
    return gaps > 0 && took > 0 ? `${(gaps / took).toFixed(1)} tokens/s` : "";
  }

  said() {
    if (!this.pieces) return "";
    const count = this.tokens ?? this.pieces;
    const words = [`${count} ${count === 1 ? "token" : "tokens"}`, this.speed()];
    words.push(`first after ${seconds(this.first - this.asked)}`);
    return words.filter(Boolean).join(" · ");
  }
}

/** @param {number} milliseconds */
function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 1 : 0)} s`;
}
