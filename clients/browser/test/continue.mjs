/**
 * Continues a cache in the page, with a repetition penalty, and prints as JSON what came out beside
 * what the whole prompt at once gives: node test/continue.mjs PACKAGE 1,2,3
 */
import { withPage } from "../verify.mjs";

await withPage(process.argv[2], undefined, async (page) => {
  const prompt = process.argv[3].split(",").map(Number);
  const answer = await page.evaluate(async (prompt) => {
    const { fetchManifest } = await import("/package.mjs");
    const { GREEDY } = await import("/sampling.mjs");
    const { Cache, Session } = await import("/session.mjs");
    const folder = new URL("package/", location.href);
    const session = await Session.open(await fetchManifest(folder), folder);
    const cache = new Cache(session.manifest, prompt.length + 32);

    const tokensOf = async (/** @type {number[]} */ prompt, /** @type {object} */ options) => {
      const tokens = [];
      const settings = { ...GREEDY, penalty: 1.5 };
      for await (const { token } of session.generate(prompt, settings, {
        most: 8,
        stopTokens: [],
        ...options,
      }))
        tokens.push(token);
      return tokens;
    };
    const half = Math.ceil(prompt.length / 2);
    const whole = await tokensOf(prompt, { most: 16 });
    await session.forward(prompt.slice(0, half), cache);
    const begun = await tokensOf(prompt.slice(half), { cache });
    const rest = await tokensOf(begun.slice(-1), { cache });

    const running = session.forward([1], cache);
    const refusal = await session
      .forward([2], cache)
      .catch((/** @type {Error} */ { message }) => message);
    await running;
    return { whole, continued: [...begun, ...rest], refusal };
  }, prompt);
  console.log(JSON.stringify(answer));
});
