/** Errors: one line that names a thing, what was found and what was expected. */

const LONGEST = 80; // characters of a stranger's value in an error

// Controls, line ends, marks that turn the direction of writing, and halves of surrogate pairs.
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

/** What this client throws for wrong input; anything else is a fault of the client. */
export class ClientError extends Error {
  name = "ClientError";
}

/**
 * Unless a condition holds, throw a ClientError.
 * @type {(thing: string, found: unknown, holds: boolean, expected: string) => any}
 */
export function expect(thing, found, holds, expected) {
  if (holds) return;
  throw new ClientError(`${printable(thing)}: found ${shown(found)}, expected ${expected}`);
}

/**
 * Return a text with its control characters escaped as in JSON, so that it cannot steer a terminal
 * or a line of text.
 * @param {string} text
 * @param {string} [kept]  characters that stay as they are
 */
export function printable(text, kept = "") {
  return text.replace(UNPRINTABLE, (character) => {
    if (kept.includes(character)) return character;
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Return a short text that shows a value, whatever it is. @param {unknown} value */
export function shown(value) {
  if (value === null || value === undefined || value === "") return "nothing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object") return "an object";
  if (typeof value === "function" || typeof value === "symbol") return `a ${typeof value}`;
  const text = printable(String(value));
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

/** Return the one line that tells what was thrown, whoever threw it. @param {unknown} thrown */
export function messageOf(thrown) {
  // Emscripten throws numbers, and a library may throw anything.
  const text = thrown instanceof Error ? thrown.message : `threw ${shown(thrown)}`;
  return printable(text.split("\n")[0].slice(0, 500)) || "an error without a message";
}
