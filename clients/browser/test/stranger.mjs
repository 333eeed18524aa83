/**
 * Opens the page while one file of the package is another one, and prints as JSON what the page
 * says: node test/stranger.mjs PACKAGE, with a list of cases on stdin.
 *
 * A case holds `path`, below /package/, and `body` (null: the file as it is); it may hold `click`,
 * the label of a button, `prompt`, and `fields`, what to type into the form's inputs.
 */
import { readFileSync } from "node:fs";
import { withPage } from "../verify.mjs";

/**
 * @typedef {import("playwright-core").Page} Page
 * @typedef {{path: string, body: string | null, click?: string, prompt?: string, fields?:
 *   Record<string, string>}} Case
 */

/** @type {Case[]} */
const cases = JSON.parse(readFileSync(0, "utf8"));

await withPage(process.argv[2], undefined, async (page) => {
  /** @type {string[]} */
  const thrown = []; // what nobody caught, in the page or its worker
  page.on("pageerror", (error) => thrown.push(error.message));
  const answers = [];
  for (const one of cases) answers.push({ ...(await seen(page, one)), thrown: thrown.splice(0) });
  console.log(JSON.stringify(answers));
});

/** @param {Page} page @param {Case} one */
async function seen(page, { path, body, click, prompt, fields }) {
  await page.unrouteAll();
  if (body !== null) await page.route(`**/package/${path}`, (route) => route.fulfill({ body }));
  await page.reload();
  await done(page);
  if (prompt !== undefined) await page.getByLabel("Prompt").fill(prompt);
  if (fields) await page.getByText("Sampling").click();
  for (const [label, value] of Object.entries(fields ?? {})) {
    await page.getByLabel(label).fill("");
    await page.getByLabel(label).pressSequentially(value);
  }
  if (click) {
    await page.getByRole("button", { name: click, exact: true }).click();
    await done(page);
  }
  return {
    state: await page.getAttribute("body", "data-state"),
    error: await page.textContent("#error"),
    text: await page.textContent("#text"),
    cases: await page.textContent("#cases"),
    facts: await page.textContent("#facts"),
    foreign: await page.locator("img, iframe, script:not([src='page.mjs'])").count(),
  };
}

/** @param {Page} page */
async function done(page) {
  await page.waitForSelector("body[data-state=ready], body[data-state=failed]");
}
