#!/usr/bin/env node
/** gptoss-browser: opens the page in headless Chromium, clicks, and prints on stdout what the page computed. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const USAGE = "usage: gptoss-browser verify PACKAGE [--screenshot FILE] [--chromium PATH], or gptoss-browser generate " +
  "PACKAGE --prompt-tokens 1,2,3 [--max-new-tokens N] [--json] [--chromium PATH]";
const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
// It sees no page but ours, often as root in a container without namespaces or network.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const text = /** @type {const} */ ({ type: "string" });
const flag = /** @type {const} */ ({ type: "boolean" });
const OPTIONS = { screenshot: text, chromium: text, "prompt-tokens": text, "max-new-tokens": text, json: flag };

/** Run a command; return the exit code. */
async function main() {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  const [command, folder] = positionals;
  const tokens = values["prompt-tokens"]?.split(",").map(Number);
  const known = (command === "verify" && !tokens) || (command === "generate" && tokens);
  if (!known || positionals.length !== 2) throw new Error(USAGE);
  const executablePath = values.chromium ?? findBrowser();
  const server = await serve(folder);
  const browser = await chromium.launch({ executablePath, args: FLAGS }); // with an empty profile
  try {
    const page = await openPage(browser, server.url);
    if (command === "verify") {
      await page.click("#verify");
      await settled(page);
      const verdict = JSON.parse((await page.textContent("#verdict")) ?? "");
      if (values.screenshot) await page.screenshot({ path: values.screenshot, fullPage: true });
      console.log(JSON.stringify({ ...verdict, package: folder }, null, 2));
      return verdict.passed ? 0 : 1;
    }
    const request = { prompt: tokens, most: Number(values["max-new-tokens"] ?? 128) };
    const answer = await page.evaluate(async (argument) => {
      const [{ call }, { GREEDY }] = await Promise.all([import("/page.mjs"), import("/sampling.mjs")]);
      return call("generate", { ...argument, sampling: GREEDY }, () => {}).catch(({ message }) => ({ error: message }));
    }, request);
    if (answer.error) throw new Error(answer.error);
    console.log(values.json ? JSON.stringify(answer, null, 2) : answer.text);
    return 0;
  } finally {
    await browser.close();
    server.close();
  }
}

/** Open the page and wait for its package. @param {import("playwright-core").Browser} browser @param {string} url */
async function openPage(browser, url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(0); // a large package takes its time
  page.on("crash", () => fail(new Error("page: crashed, probably out of memory; expected a smaller package")));
  page.on("console", (message) => message.type() === "error" && console.error(message.text()));
  await page.goto(url);
  await settled(page);
  return page;
}

/** Wait until the page is done with what it does; throw its error, if any. @param {import("playwright-core").Page} page */
async function settled(page) {
  await page.waitForSelector("body[data-state=ready], body[data-state=failed]");
  const error = await page.textContent("#error");
  if (error) throw new Error(error);
}

/** Return the first browser on PATH. */
function findBrowser() {
  const places = (process.env.PATH ?? "").split(delimiter).flatMap((folder) => BROWSERS.map((name) => join(folder, name)));
  const found = places.find((place) => {
    try {
      return accessSync(place, constants.X_OK) === undefined;
    } catch {
      return false;
    }
  });
  if (!found) throw new Error(`browser: found none of ${BROWSERS.join(", ")} on PATH; install chromium, or give --chromium`);
  return found;
}

/** @param {Error} error */
function fail(error) {
  console.error(error.message.split("\n")[0]);
  process.exit(2);
}

main().then((code) => (process.exitCode = code), fail);
