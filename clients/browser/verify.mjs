#!/usr/bin/env node
/** gptoss-browser: opens the page in headless Chromium and prints on stdout what it computes. */
import { spawnSync } from "node:child_process";
import { chromium } from "playwright-core";
import { misused, program, wholeNumber } from "./program.mjs";
import { ClientError, printable } from "./public/errors.mjs";
import { serve } from "./serve.mjs";

/** @typedef {import("playwright-core").Page} Page */

const USAGE = `usage: gptoss-browser verify|generate PACKAGE [OPTION]...; --help lists the options
  gptoss-browser verify PACKAGE          run the golden vectors and print the verdict as JSON;
                                         exit code 1 if they fail
    --screenshot FILE                    save a picture of the page
  gptoss-browser generate PACKAGE        print a greedy continuation
    --prompt-tokens 1,2,3                the prompt
    --max-new-tokens N                   default 128
    --json                               print tokens, text, finish reason and timings
  --chromium PATH                        the browser; the default is the first one on PATH`;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
// It sees no page but ours, often as root in a container without namespaces or network.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic"];
const TEXT = /** @type {const} */ ({ type: "string" });
const OPTIONS = {
  screenshot: TEXT,
  chromium: TEXT,
  "prompt-tokens": TEXT,
  "max-new-tokens": TEXT,
  json: /** @type {const} */ ({ type: "boolean" }),
};

program(import.meta.url, USAGE, OPTIONS, async (values, positionals) => {
  const [command, folder] = positionals;
  const prompt = values["prompt-tokens"];
  const expected = prompt === undefined ? "verify" : "generate";
  if (positionals.length !== 2 || command !== expected) misused(USAGE);
  if (prompt === undefined)
    return withPage(folder, values.chromium, (page) => verify(page, folder, values.screenshot));
  const most = Number.MAX_SAFE_INTEGER;
  const tokens = prompt
    .split(",")
    .map((/** @type {string} */ id) => wholeNumber("--prompt-tokens", id.trim(), most));
  const count = wholeNumber("--max-new-tokens", values["max-new-tokens"] ?? "128", most);
  return withPage(folder, values.chromium, async (page) => {
    const answer = await generate(page, tokens, count);
    // A text may have lines, but may not steer the terminal.
    console.log(values.json ? jsonText(answer) : printable(answer.text, "\n\t"));
  });
});

/**
 * Serve a package, open the page with an empty profile, and do something with it once the package
 * is loaded.
 * @template T
 * @param {string} folder
 * @param {string | undefined} path
 * @param {(page: Page) => Promise<T>} action
 */
export async function withPage(folder, path, action) {
  const server = await serve(folder);
  let browser = /** @type {import("playwright-core").Browser | undefined} */ (undefined);
  try {
    browser = await chromium.launch({ executablePath: path ?? findBrowser(), args: FLAGS });
    const page = await browser.newPage();
    page.setDefaultTimeout(0); // a large package takes its time
    const crash = page.waitForEvent("crash").then(() => {
      throw new ClientError("page: crashed; out of memory?");
    });
    const work = async () => {
      await page.goto(server.url);
      await settled(page);
      return action(page);
    };
    return await Promise.race([crash, work()]);
  } finally {
    await browser?.close();
    server.close();
  }
}

/** Wait until the page is done with what it does; throw its error. @param {Page} page */
export async function settled(page) {
  const body = await page.waitForSelector("body[data-state=ready], body[data-state=failed]");
  const error = await page.textContent("#error");
  if (error) throw new ClientError(error);
  if ((await body.getAttribute("data-state")) === "failed")
    throw new ClientError("page: failed without a reason");
}

/**
 * Click Verify and print the verdict.
 * @param {Page} page
 * @param {string} folder
 * @param {string} [screenshot]
 */
async function verify(page, folder, screenshot) {
  await page.click("#verify");
  await settled(page);
  const verdict = JSON.parse((await page.textContent("#verdict")) ?? "");
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
  console.log(jsonText({ ...verdict, package: folder }));
  return verdict.passed ? 0 : 1;
}

/**
 * Generate greedily with the page's engine.
 * @param {Page} page
 * @param {number[]} prompt
 * @param {number} most
 */
async function generate(page, prompt, most) {
  const answer = await page.evaluate(
    async (argument) => {
      const { call } = await import("/page.mjs");
      return call("generate", argument, () => {}).catch((/** @type {Error} */ { message }) => ({
        error: message,
      }));
    },
    { prompt, most },
  );
  if (answer.error) throw new ClientError(answer.error);
  return answer;
}

/**
 * Return a document as JSON that cannot steer a terminal: JSON.stringify leaves some controls as
 * they are.
 * @param {object} document
 */
const jsonText = (document) => printable(JSON.stringify(document, null, 2), "\n");

/** Return the first browser on PATH. */
function findBrowser() {
  const found = spawnSync("sh", ["-c", `command -v ${BROWSERS.join(" || command -v ")}`], {
    encoding: "utf8",
  });
  if (found.status === 0) return found.stdout.trim();
  throw new ClientError(`PATH: found none of ${BROWSERS.join(", ")}; expected one or --chromium`);
}
