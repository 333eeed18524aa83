/** Mutations: a seeded stream of damaged copies, of JSON documents and of bytes. */

/** Return a generator of integers from 0 to below its argument. @param {number} seed */
export function randomIntegers(seed) {
  let state = seed >>> 0;
  return (/** @type {number} */ below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/**
 * What strangers put where something else belongs.
 * @type {any[]}
 */
const VALUES = [
  null,
  true,
  false,
  0,
  -1,
  1,
  0.5,
  2 ** 31,
  2 ** 53,
  -(2 ** 63),
  1e308,
  "",
  "x",
  "..",
  "../x",
  "/etc/passwd",
  "a\u0000b",
  "\u001b[2J",
  "\ud800",
  "__proto__",
  "constructor",
  "NaN",
  [],
  [[]],
  {},
  { length: 3 },
  { toString: null, valueOf: null },
  { __proto__: null },
  [null],
  "x".repeat(100_000),
  Array(2000).fill(0),
];

/**
 * Return a copy of a JSON value with one place changed, removed, doubled or moved.
 * @param {any} value
 * @param {(below: number) => number} random
 */
export function mutatedJson(value, random) {
  const copy = structuredClone(value);
  /** @type {{parent: any, key: string | number}[]} */
  const places = [];
  const collect = (/** @type {any} */ parent) => {
    if (typeof parent !== "object" || parent === null) return;
    for (const key of Object.keys(parent)) {
      places.push({ parent, key });
      collect(parent[key]);
    }
  };
  collect(copy);
  const { parent, key } = places[random(places.length)];
  const other = places[random(places.length)];
  const changes = [
    () => (parent[key] = VALUES[random(VALUES.length)]),
    () => (parent[key] = structuredClone(other.parent[other.key])),
    () => (Array.isArray(parent) ? parent.splice(Number(key), 1) : delete parent[key]),
    () =>
      Array.isArray(parent)
        ? parent.push(structuredClone(parent[Number(key)]))
        : (parent.added = 1),
    () => (parent[key] = [parent[key]]),
  ];
  changes[random(changes.length)]();
  return copy;
}

/**
 * Return a copy of some bytes with a few of them changed, removed or repeated.
 * @param {Uint8Array} bytes
 * @param {(below: number) => number} random
 */
export function mutatedBytes(bytes, random) {
  let copy = Uint8Array.from(bytes);
  for (let left = 1 + random(4); left > 0; left--) {
    const at = random(copy.length);
    const end = Math.min(copy.length, at + 1 + random(16));
    const changes = [
      () => copy.fill(random(256), at, at + 1),
      () => copy.fill(0xff, at, end),
      () => (copy[at] ^= 1 << random(8)),
      () => (copy = Uint8Array.of(...copy.subarray(0, at), ...copy.subarray(end))),
      () => (copy = Uint8Array.of(...copy.subarray(0, end), ...copy.subarray(at))),
      () => (copy = copy.slice(0, at)),
    ];
    changes[random(changes.length)]();
    if (copy.length === 0) return copy;
  }
  return copy;
}
