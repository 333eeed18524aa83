/**
 * Uses the page as a person does, and prints as JSON what was seen: node test/drive.mjs PACKAGE
 * PROMPT SCREENSHOT.
 */
import { settled, withPage } from "../verify.mjs";

const [folder, prompt, screenshot] = process.argv.slice(2);

await withPage(folder, undefined, async (page) => {
  /** @type {{console: string[], requests: string[]}} */
  const seen = { console: [], requests: [] };
  page.on("console", (message) => seen.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => seen.console.push(`error: ${error.message}`));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.reload(); // once more, now watched
  await settled(page);
  await page.evaluate(() => {
    const output = /** @type {HTMLElement} */ (document.getElementById("text"));
    /** @type {string[]} */
    const texts = [];
    const collect = () => texts.push(output.textContent ?? "");
    new MutationObserver(collect).observe(output, { childList: true });
    Object.assign(globalThis, { texts });
  });

  await page.getByLabel("Prompt").fill(prompt);
  await page.getByText("Sampling").click();
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("New tokens").fill("64");
  await page.getByRole("button", { name: "Generate" }).click();
  await settled(page);
  const texts = /** @type {string[]} */ (await page.evaluate("texts"));
  const generated = {
    text: await page.textContent("#text"),
    speed: await page.textContent("#speed"),
    texts,
  };

  await page.getByRole("button", { name: "Verify" }).click();
  await settled(page);
  const verified = await page.textContent("#verified");
  await page.screenshot({ path: screenshot, fullPage: true });

  await page.getByLabel("New tokens").fill("900");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.waitForFunction(
    () => (document.getElementById("text")?.textContent ?? "").length > 10,
  );
  await page.getByRole("button", { name: "Stop" }).click();
  await settled(page);
  const stopped = await page.textContent("#speed");
  const threads = await page.evaluate(() => crossOriginIsolated);
  console.log(JSON.stringify({ ...seen, url: page.url(), generated, verified, stopped, threads }));
});
