/** Return a function that turns tokens of a byte-level tokenizer into text as they come, never half a character: it
 * takes a token, and whether that is the last, and returns the text that is certain by then, possibly none.
 * @param {(ids: number[]) => string} decode  U+FFFD for bytes that are no UTF-8 */
export function textStream(decode) {
  /** @type {number[]} */
  let held = []; // tokens whose text is not given yet
  return (/** @type {number} */ token, /** @type {boolean} */ last) => {
    held.push(token);
    const text = decode(held);
    if (text.endsWith("\ufffd") && !last) return ""; // the next token may complete a character
    held = [];
    return text;
  };
}
