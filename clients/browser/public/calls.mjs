/**
 * Calls: how a long prompt is cut into calls of the graph, and how many slots that takes in a
 * cache.
 */

const CHUNK = 512; // most tokens of one call

/**
 * Return C, the slots of a layer's cache. Portable window layers are rings in which a call
 * overwrites nothing that it may still see, with a slot beside the kept tokens; those of target ort
 * hold the last tokens in order.
 * @param {string} target
 * @param {{window: number, sink_tokens: number}} layer
 * @param {number} capacity  tokens
 */
export function slots(target, { window, sink_tokens: kept }, capacity) {
  if (window === 0) return capacity;
  if (target === "ort") return window;
  return Math.max(kept + 1, Math.min(capacity, window + CHUNK - 1));
}

/**
 * Return where the calls that run `count` tokens end. A graph of target ort returns the logits of a
 * call's last token alone, so there a call ends after each wanted position as well.
 * @param {string} target
 * @param {number} count
 * @param {number[]} positions  rising
 */
export function callEnds(target, count, positions) {
  const wanted = target === "ort" ? positions.map((position) => position + 1) : [];
  const ends = [];
  let end = 0;
  while (end < count) {
    const begin = end;
    const next = wanted.find((place) => place > begin) ?? count;
    end = Math.min(begin + CHUNK, count, next);
    ends.push(end);
  }
  return ends;
}
