#!/usr/bin/env node
/** gptoss-browser: opens the page in headless Chromium and prints on stdout what it computes. */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { program, serve } from "./serve.mjs";

/** @typedef {import("playwright-core").Page} Page */

const USAGE = "usage: gptoss-browser verify PACKAGE [--screenshot FILE] [--chromium PATH], or gptoss-browser " +
  "generate PACKAGE --prompt-tokens 1,2,3 [--max-new-tokens N] [--json] [--chromium PATH]";
const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
// It sees no page but ours, often as root in a container without namespaces or network.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic"];

program(import.meta.url, async () => {
  const [text, flag] = /** @type {const} */ ([{ type: "string" }, { type: "boolean" }]);
  const options = { screenshot: text, chromium: text, "prompt-tokens": text, "max-new-tokens": text, json: flag };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [command, folder] = positionals;
  const prompt = values["prompt-tokens"]?.split(",").map(Number);
  if (positionals.length !== 2 || command !== (prompt ? "generate" : "verify")) throw new Error(USAGE);
  return withPage(folder, values.chromium, async (page) => {
    if (!prompt) return verify(page, folder, values.screenshot);
    const answer = await generate(page, prompt, Number(values["max-new-tokens"] ?? 128));
    console.log(values.json ? JSON.stringify(answer, null, 2) : answer.text);
  });
});

/** Serve a package, open the page with an empty profile, and do something with it once the package is loaded.
 * @template T @param {string} folder @param {string | undefined} path @param {(page: Page) => Promise<T>} action */
export async function withPage(folder, path, action) {
  const server = await serve(folder);
  let browser = /** @type {import("playwright-core").Browser | undefined} */ (undefined);
  try {
    browser = await chromium.launch({ executablePath: path ?? findBrowser(), args: FLAGS });
    const page = await browser.newPage();
    page.setDefaultTimeout(0); // a large package takes its time
    const crash = page.waitForEvent("crash").then(() => Promise.reject(new Error("page: crashed; out of memory?")));
    const work = page.goto(server.url).then(() => settled(page)).then(() => action(page));
    return await Promise.race([crash, work]);
  } finally {
    await browser?.close();
    server.close();
  }
}

/** Wait until the page is done with what it does; throw its error. @param {Page} page */
export async function settled(page) {
  await page.waitForSelector("body[data-state=ready], body[data-state=failed]");
  const error = await page.textContent("#error");
  if (error) throw new Error(error);
}

/** Click Verify and print the verdict. @param {Page} page @param {string} folder @param {string} [screenshot] */
async function verify(page, folder, screenshot) {
  await page.click("#verify");
  await settled(page);
  const verdict = JSON.parse((await page.textContent("#verdict")) ?? "");
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
  console.log(JSON.stringify({ ...verdict, package: folder }, null, 2));
  return verdict.passed ? 0 : 1;
}

/** Generate greedily with the page's engine. @param {Page} page @param {number[]} prompt @param {number} most */
async function generate(page, prompt, most) {
  const answer = await page.evaluate(async (argument) => {
    const { call } = await import("/page.mjs");
    return call("generate", argument, () => {}).catch((/** @type {Error} */ { message }) => ({ error: message }));
  }, { prompt, most });
  if (answer.error) throw new Error(answer.error);
  return answer;
}

/** Return the first browser on PATH. */
function findBrowser() {
  const found = spawnSync("sh", ["-c", `command -v ${BROWSERS.join(" || command -v ")}`], { encoding: "utf8" });
  if (found.status !== 0) throw new Error(`PATH: found none of ${BROWSERS.join(", ")}; expected one or --chromium`);
  return found.stdout.trim();
}
