/** Text: turns tokens into text as they come, never half a character, in constant time a token. */

// What bytes that are no UTF-8 decode to; an unfinished character at the end becomes one of them.
const REPLACEMENT = "\ufffd";
const TAIL = 3; // an unfinished character has at most 3 bytes, and so lies in as many tokens

/**
 * Return a function that takes a token of a byte-level tokenizer, and whether that is the last one,
 * and returns the text that is certain by then, perhaps none.
 * @param {(ids: number[]) => string} decode
 */
export function textStream(decode) {
  /** @type {number[]} */
  let held = []; // the last tokens, while they may end inside a character
  let given = 0; // characters of their text that were returned
  return (/** @type {number} */ token, /** @type {boolean} */ last) => {
    // A token without text, such as a special one, is no part of a character: those around it join.
    if (decode([token]) !== "") held.push(token);
    const text = decode(held);
    const open = text.endsWith(REPLACEMENT) && !last;
    const certain = open ? text.length - REPLACEMENT.length : text.length;
    const fresh = text.slice(given, certain);
    given = certain;
    if (!open) {
      held = [];
      given = 0;
    } else if (held.length > TAIL) {
      // The unfinished character, if it is one, lies in the tail; all before it was returned.
      held = held.slice(-TAIL);
      given = decode(held).length - REPLACEMENT.length;
    }
    return fresh;
  };
}
