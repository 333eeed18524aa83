/**
 * What is written in Markdown's manner, as plain values: no HTML comes out of here, so nothing that
 * a model says can become any. What is no block that is known stays a paragraph as it was written.
 *
 * @typedef {{kind: "text" | "code" | "strong" | "em", text: string, parts: Inline[]}} Inline
 * @typedef {{ordered: boolean, start: number, items: Item[]}} List
 * @typedef {{text: string, lists: List[]}} Item
 * @typedef {(
 *   {kind: "code", language: string, text: string} |
 *   {kind: "heading", level: number, text: string} |
 *   {kind: "rule"} |
 *   {kind: "table", head: string[], rows: string[][]} |
 *   {kind: "quote", text: string} |
 *   {kind: "list", list: List} |
 *   {kind: "paragraph", text: string}
 * ) & {source: string}} Block
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]{0,40})/;
const HEADING = /^(#{1,6})[ \t]+(.+)$/;
const RULE = /^ {0,3}(?:\*[ \t]*){3,}$|^ {0,3}(?:-[ \t]*){3,}$|^ {0,3}(?:_[ \t]*){3,}$/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const TABLE_RULE = /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?)?[ \t]*$/;
const MOST_DEPTH = 6; // of lists within lists
const MOST_STRONG = 3; // of what is strong within what is slanted, and so on

/**
 * Return the blocks of a text, in order. Each has its `source`, so that blocks that did not change
 * need not be shown again.
 * @param {string} text
 * @returns {Block[]}
 */
export function blocks(text) {
  const lines = text.split("\n");
  /** @type {Block[]} */
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const begin = at;
    const read = READERS.find((reader) => reader.begins(lines, at)) ?? PARAGRAPH;
    const [block, next] = read.take(lines, at);
    at = next;
    found.push({ ...block, source: `${block.kind} ${lines.slice(begin, at).join("\n")}` });
  }
  return found;
}

const READERS = [
  { begins: (lines, at) => FENCE.test(lines[at]), take: code },
  {
    begins: (lines, at) => HEADING.test(lines[at]),
    take(lines, at) {
      const [, marks, text] = HEADING.exec(lines[at]);
      return [{ kind: "heading", level: marks.length, text }, at + 1];
    },
  },
  { begins: (lines, at) => RULE.test(lines[at]), take: (_, at) => [{ kind: "rule" }, at + 1] },
  { begins: beginsTable, take: table },
  { begins: (lines, at) => QUOTE.test(lines[at]), take: quote },
  { begins: (lines, at) => ITEM.test(lines[at]), take: list },
];

const PARAGRAPH = {
  take(lines, at) {
    let end = at + 1;
    while (end < lines.length && lines[end].trim() && !READERS.some((it) => it.begins(lines, end)))
      end += 1;
    return [{ kind: "paragraph", text: lines.slice(at, end).join("\n") }, end];
  },
};

/** A block of code: up to its closing fence, or to the end where none has come yet. */
function code(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const closes = (line) => {
    const marks = line.trim();
    return marks.length >= fence.length && marks === fence[0].repeat(marks.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  return [{ kind: "code", language, text: lines.slice(at + 1, end).join("\n") }, end + 1];
}

function beginsTable(lines, at) {
  return lines[at].includes("|") && TABLE_RULE.test(lines[at + 1] ?? "");
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const head = cells(lines[at]);
  const rows = lines.slice(at + 2, end).map((line) => cells(line).slice(0, head.length));
  return [{ kind: "table", head, rows }, end];
}

/** The cells of one line of a table; `\|` is no border. */
function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const text = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [{ kind: "quote", text: text.join("\n") }, end];
}

/** A list and the lists in it; a line that is no item goes on with the item before it. */
function list(lines, at) {
  const open = [opened(ITEM.exec(lines[at]))];
  let end = at;
  for (; end < lines.length; end += 1) {
    const item = RULE.test(lines[end]) ? null : ITEM.exec(lines[end]);
    if (item) place(open, item);
    else if (/^[ \t]+\S/.test(lines[end])) lastItem(open).text += `\n${lines[end].trim()}`;
    else if (lines[end].trim() || !ITEM.test(lines[end + 1] ?? "")) break;
  }
  return [{ kind: "list", list: open[0].list }, end];
}

/** Put an item where its indentation belongs: into an open list, or into a new one below it. */
function place(open, item) {
  const indent = width(item[1]);
  while (open.length > 1 && indent < open[open.length - 1].indent) open.pop();
  const innermost = open[open.length - 1];
  if (indent >= innermost.indent + 2 && innermost.list.items.length && open.length < MOST_DEPTH) {
    const below = opened(item);
    lastItem(open).lists.push(below.list);
    open.push(below);
  }
  open[open.length - 1].list.items.push({ text: item[3], lists: [] });
}

function opened(item) {
  const ordered = /^\d/.test(item[2]);
  const start = ordered ? Number.parseInt(item[2], 10) : 1;
  return { indent: width(item[1]), list: { ordered, start, items: [] } };
}

function lastItem(open) {
  const items = open[open.length - 1].list.items;
  return items[items.length - 1];
}

function width(indentation) {
  return indentation.replaceAll("\t", "    ").length;
}

/**
 * Return what stands within a line of text: code, what is strong, what is slanted, and the rest.
 * A mark that nothing closes stays as it is.
 * @param {string} text
 * @param {number} [depth]  of marks around it
 * @returns {Inline[]}
 */
export function inlines(text, depth = 0) {
  /** @type {Inline[]} */
  const found = [];
  let plain = 0; // where the text begins that is not yet in `found`
  let at = 0;
  while (at < text.length) {
    const mark = MARKS.get(text[at])?.(text, at, depth);
    if (!mark) {
      at += text[at] === "`" ? run(text, at, "`") : 1;
      continue;
    }
    if (plain < at) found.push({ kind: "text", text: text.slice(plain, at), parts: [] });
    found.push(mark.inline);
    at = plain = mark.end;
  }
  if (plain < text.length) found.push({ kind: "text", text: text.slice(plain), parts: [] });
  return found;
}

const MARKS = new Map([
  ["`", codeSpan],
  ["*", emphasis],
]);

function codeSpan(text, at) {
  const length = run(text, at, "`");
  for (let end = at + length; end < text.length; end += 1) {
    if (text[end] !== "`") continue;
    const closing = run(text, end, "`");
    if (closing === length) {
      const inner = text.slice(at + length, end).replace(/^ (.+) $/, "$1");
      return { inline: { kind: "code", text: inner, parts: [] }, end: end + length };
    }
    end += closing - 1;
  }
  return null;
}

function emphasis(text, at, depth) {
  const length = Math.min(run(text, at, "*"), 2);
  const marks = "*".repeat(length);
  const begin = at + length;
  if (depth >= MOST_STRONG || !/\S/.test(text[begin] ?? "")) return null;
  const end = text.indexOf(marks, begin + 1);
  if (end < 0 || /\s/.test(text[end - 1])) return null;
  const inner = text.slice(begin, end);
  const kind = length === 2 ? "strong" : "em";
  return {
    inline: { kind, text: inner, parts: inlines(inner, depth + 1) },
    end: end + length,
  };
}

/** Count how often a character stands at this place. */
function run(text, at, character) {
  let end = at;
  while (text[end] === character) end += 1;
  return end - at;
}
