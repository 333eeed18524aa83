/**
 * Texts as elements. What a model or a person wrote becomes text nodes alone; no markup is parsed.
 *
 * @typedef {import("./blocks.mjs").Block} Block
 * @typedef {import("./blocks.mjs").List} List
 */
import { blocks, inlines } from "./blocks.mjs";

/**
 * Make an element.
 * @param {string} name
 * @param {{text?: string, class?: string}} [given]
 * @param {Node[]} [children]
 */
export function element(name, given = {}, children = []) {
  const made = document.createElement(name);
  if (given.class) made.className = given.class;
  if (given.text !== undefined) made.textContent = given.text;
  made.append(...children);
  return made;
}

/** Shows a text that grows: only blocks that changed are made again, so what is selected stays. */
export class GrowingText {
  /** @param {HTMLElement} parent  which holds nothing else */
  constructor(parent) {
    this.parent = parent;
    /** @type {string[]} */
    this.sources = [];
  }

  /** @param {string} text  all of it */
  show(text) {
    const found = blocks(text);
    const same = found.findIndex((block, index) => block.source !== this.sources[index]);
    const kept = same < 0 ? found.length : same;
    while (this.parent.children.length > kept) this.parent.lastElementChild?.remove();
    this.parent.append(...found.slice(kept).map(shown));
    this.sources = found.map((block) => block.source);
  }
}

/** @param {Block} block */
function shown(block) {
  const made = MAKERS[block.kind](block);
  made.dir = "auto"; // by the language that is written there
  return made;
}

/** @type {Record<string, (block: any) => HTMLElement>} */
const MAKERS = {
  code: ({ language, text }) => codeBlock(language, text),
  // The page has its own first and second headings.
  heading: ({ level, text }) => element(level < 3 ? "h3" : "h4", {}, spoken(text)),
  rule: () => element("hr"),
  table: ({ head, rows }) => tableOf(head, rows),
  quote: ({ text }) => element("blockquote", {}, spoken(text)),
  list: ({ list }) => listOf(list),
  paragraph: ({ text }) => element("p", {}, spoken(text)),
};

/**
 * Return the nodes of a line of text.
 * @param {string} text
 * @returns {Node[]}
 */
function spoken(text) {
  return nodes(inlines(text));
}

/** @param {import("./blocks.mjs").Inline[]} parts @returns {Node[]} */
function nodes(parts) {
  return parts.map((part) => {
    if (part.kind === "text") return document.createTextNode(part.text);
    if (part.kind === "code") return element("code", { text: part.text });
    return element(part.kind, {}, nodes(part.parts));
  });
}

/** @param {string} language @param {string} text */
function codeBlock(language, text) {
  const caption = element("figcaption", {}, [element("span", { text: language || "text" })]);
  if (navigator.clipboard) caption.append(copyButton(text));
  const code = element("pre", {}, [element("code", { text })]);
  code.tabIndex = 0; // so that the keyboard can scroll it
  return element("figure", { class: "code" }, [caption, code]);
}

/** @param {string} text */
function copyButton(text) {
  const button = element("button", { text: "Copy" });
  button.setAttribute("type", "button");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

/** @param {string[]} head @param {string[][]} rows */
function tableOf(head, rows) {
  const line = (/** @type {string} */ name, /** @type {string[]} */ cells) =>
    element(
      "tr",
      {},
      cells.map((cell) => element(name, {}, spoken(cell))),
    );
  const table = element("table", {}, [
    element("thead", {}, [line("th", head)]),
    element(
      "tbody",
      {},
      rows.map((row) => line("td", row)),
    ),
  ]);
  return element("div", { class: "table" }, [table]);
}

/** @param {List} list @returns {HTMLElement} */
function listOf(list) {
  const items = list.items.map((item) =>
    element("li", {}, [...spoken(item.text), ...item.lists.map(listOf)]),
  );
  const made = element(list.ordered ? "ol" : "ul", {}, items);
  if (made instanceof HTMLOListElement && list.start !== 1) made.start = list.start;
  return made;
}
