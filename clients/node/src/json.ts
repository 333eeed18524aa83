// JSON as strangers write it: bounded in size, depth and digits, before JSON.parse makes objects of
// it.
import { check, GptossError, oneLine } from "./errors.js";
import { readFile } from "./files.js";

export const JSON_LIMIT = 16_000_000; // bytes of one document
const DEPTH_LIMIT = 100; // objects and lists inside each other
const DIGITS_LIMIT = 100; // characters of one number; those this project writes have 25 at most
const NUMBER = /-?[0-9][0-9+.eE-]*/y;
const COLON = /\s*:/y;
const HALF_OF_A_PAIR = /\p{Surrogate}/u;

/** Returns the document in a file of at most `limit` bytes, undefined where there is no file. */
export function readJson(path: string, limit = JSON_LIMIT): unknown {
  const bytes = readFile(path, limit);
  return bytes && parseJson(bytes, path);
}

/**
 * Returns the value of a JSON text in UTF-8. Refuses what JSON.parse lets pass: a key that appears
 * twice in an object, numbers beyond the range of a double, text that is not Unicode, and what is
 * nested too deep.
 */
export function parseJson(bytes: Uint8Array, where: string): unknown {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    checkLimits(text);
    return JSON.parse(text);
  } catch (error) {
    throw new GptossError(`${where}: not JSON (${oneLine(error)}); export the package again`);
  }
}

/**
 * Walks over the strings, numbers and brackets of a text. JSON.parse checks afterwards whether they
 * stand in a right order.
 */
function checkLimits(text: string): void {
  const open: (Set<string> | null)[] = []; // the keys of each open object, null for a list
  let place = 0;
  while (place < text.length) {
    const character = text[place]!;
    if (character === '"') {
      const end = endOfString(text, place);
      const value = stringValue(text.slice(place, end));
      const keys = open.at(-1);
      if (keys && matchAt(COLON, text, end) !== "") addKey(keys, value);
      place = end;
      continue;
    }
    if (character === "{" || character === "[") {
      open.push(character === "{" ? new Set() : null);
      const most = `at most ${DEPTH_LIMIT} objects and lists inside each other`;
      check(open.length <= DEPTH_LIMIT, "nesting", "more", most);
    }
    if (character === "}" || character === "]") open.pop();
    const number = matchAt(NUMBER, text, place);
    if (number !== "") checkNumber(number);
    place += Math.max(1, number.length);
  }
}

/** Returns what a sticky pattern matches at a place, or an empty text. */
function matchAt(pattern: RegExp, text: string, place: number): string {
  pattern.lastIndex = place;
  return pattern.exec(text)?.[0] ?? "";
}

/** Returns the place after the closing quote of the string that begins at `begin`. */
function endOfString(text: string, begin: number): number {
  let end = begin;
  while (true) {
    end = text.indexOf('"', end + 1);
    check(end >= 0, "a string", "no closing quote", "one");
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return end + 1;
  }
}

/** Returns what a string with its quotes stands for. */
function stringValue(string: string): string {
  const value = string.includes("\\") ? (JSON.parse(string) as string) : string.slice(1, -1);
  check(!HALF_OF_A_PAIR.test(value), "a string", "half of a surrogate pair", "Unicode");
  return value;
}

/** Adds a key to those that its object has so far. */
function addKey(keys: Set<string>, key: string): void {
  check(!keys.has(key), "a key", `'${key}' twice in one object`, "each key once");
  keys.add(key);
}

function checkNumber(digits: string): void {
  check(
    digits.length <= DIGITS_LIMIT,
    "a number",
    `${digits.length} digits`,
    `at most ${DIGITS_LIMIT}`,
  );
  check(Number.isFinite(Number(digits)), "a number", digits, "one within the range of a double");
}
