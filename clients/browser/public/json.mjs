/**
 * JSON of strangers: parsed with limits on depth and numbers, and without what readers would
 * understand differently.
 */
import { ClientError, messageOf, shown } from "./errors.mjs";

const DEEPEST = 100; // objects and lists inside each other
const MOST_DIGITS = 40; // of an integer; 64 bits have 20
const NUMBER = /-?\d[\d.eE+-]*/y;

/**
 * Return the value of a JSON text in UTF-8. Throws a ClientError that begins with `where` for what
 * is no JSON, is nested too deep, repeats a key of an object, or holds a number or text that cannot
 * be represented.
 * @param {Uint8Array} bytes
 * @param {string} where
 */
export function parseJson(bytes, where) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    checkTokens(text);
    return JSON.parse(text);
  } catch (error) {
    throw new ClientError(`${where}: found no JSON (${messageOf(error)}), expected a whole file`);
  }
}

/** Check what JSON.parse lets pass, of a text that may be anything. @param {string} text */
function checkTokens(text) {
  /** @type {(Set<string> | null)[]} */
  const open = []; // the keys of each object that is open; null for a list
  let keyComes = false; // whether the next string is a key
  for (let place = 0; place < text.length; place++) {
    const character = text[place];
    if (character === "{" || character === "[") {
      if (open.length === DEEPEST) throw new Error(`nested more than ${DEEPEST} deep`);
      keyComes = character === "{";
      open.push(keyComes ? new Set() : null);
    } else if (character === "}" || character === "]") {
      open.pop();
      keyComes = false;
    } else if (character === ",") {
      keyComes = open.at(-1) !== null;
    } else if (character === '"') {
      const end = stringEnd(text, place);
      checkString(text.slice(place, end), keyComes ? open.at(-1) : null);
      keyComes = false;
      place = end - 1;
    } else if (character === "-" || (character >= "0" && character <= "9")) {
      place = checkNumber(text, place) - 1;
    }
  }
}

/**
 * Return the place after the string that begins at a quote.
 * @param {string} text
 * @param {number} begin
 */
function stringEnd(text, begin) {
  let quote = text.indexOf('"', begin + 1);
  while (quote !== -1) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return quote + 1; // an odd number of them escapes the quote
    quote = text.indexOf('"', quote + 1);
  }
  throw new Error("a string without an end");
}

/**
 * @param {string} token  with its quotes
 * @param {Set<string> | null | undefined} keys  of its object, if it is one
 */
function checkString(token, keys) {
  // Only an escape can be half of a pair of surrogates: the text itself was valid UTF-8.
  const string = token.includes("\\") ? JSON.parse(token) : token.slice(1, -1);
  if (!string.isWellFormed()) throw new Error(`${shown(string)} is no Unicode text`);
  if (!keys) return;
  if (keys.has(string)) throw new Error(`${shown(string)} appears twice`);
  keys.add(string);
}

/**
 * Return the place after the number that begins at `place`.
 * @param {string} text
 * @param {number} place
 */
function checkNumber(text, place) {
  NUMBER.lastIndex = place;
  const digits = NUMBER.exec(text)?.[0] ?? "";
  if (/^-?\d+$/.test(digits) && digits.length > MOST_DIGITS)
    throw new Error(`a number of ${digits.length} digits`);
  if (!Number.isFinite(Number(digits)))
    throw new Error(`the number ${shown(digits)} is beyond a double`);
  return NUMBER.lastIndex;
}
