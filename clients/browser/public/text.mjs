/** TextStream: turns tokens of a byte-level tokenizer into text as they come, never half a character. */
export class TextStream {
  /** @type {number[]} */
  #held = []; // tokens whose text is not given yet

  /** @param {(ids: number[]) => string} decode  U+FFFD for bytes that are no UTF-8 */
  constructor(decode) {
    this.decode = decode;
  }

  /** Add a token; return the text that is certain by now, possibly none. @param {number} token */
  push(token) {
    this.#held.push(token);
    return this.decode(this.#held).endsWith("\ufffd") ? "" : this.finish(); // the next token may complete a character
  }

  /** Return what was held back; a character left incomplete reads U+FFFD. */
  finish() {
    return this.decode(this.#held.splice(0));
  }
}
