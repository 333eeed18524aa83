/**
 * Opens every page of the built documentation in headless Chromium, served over HTTP and wide as a
 * desktop and a phone, and prints as JSON what was seen:
 * node tests/clients/site_pages.mjs CHROMIUM URL FOLDER PAGE...; screenshots go to FOLDER.
 */
import { createRequire } from "node:module";
import { join } from "node:path";

// playwright-core is what the browser client's tests use.
const client = new URL("../../clients/browser/package.json", import.meta.url);
const { chromium } = createRequire(client)("playwright-core");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic"];
const VIEWS = [
  { name: "desktop", width: 1280, height: 900, scheme: "light" },
  { name: "phone", width: 360, height: 780, scheme: "dark" },
];
// The pages whose pictures people look at.
const PICTURES = ["index.html", "getting-started.html", "concepts.html", "reference/runtime.html"];

const [program, url, folder, ...pages] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: program, args: FLAGS });
const context = await browser.newContext();
context.setDefaultTimeout(120_000);
const seen = [];
for (const view of VIEWS) seen.push(await search(view));
for (const page of pages) seen.push(...(await look(page)));
await browser.close();
console.log(JSON.stringify(seen));

/** Open a page, and listen to what it asks for and complains about. */
async function listen(name) {
  const page = await context.newPage();
  const heard = { page: name, console: [], outside: [], failed: [] };
  page.on("console", (message) => heard.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => heard.console.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const asked = request.url();
    if (!asked.startsWith(url) && !asked.startsWith("data:")) heard.outside.push(asked);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) heard.failed.push(response.url());
  });
  return { page, heard };
}

/** Make a page as wide as a view is, and as light. */
async function show(page, view) {
  await page.setViewportSize({ width: view.width, height: view.height });
  await page.emulateMedia({ colorScheme: view.scheme });
}

/** Open one page, and return what was seen of it in each view. */
async function look(name) {
  const { page, heard } = await listen(name);
  // Every page would read and index the whole site; that is tried once, below.
  const none = { config: { lang: ["en"], separator: " ", pipeline: [], fields: {} }, docs: [] };
  await page.route("**/search_index.json", (route) => route.fulfill({ json: none }));
  await show(page, VIEWS[0]);
  await page.goto(`${url}/${name}`, { waitUntil: "load" });
  const measure = await context.newCDPSession(page);
  const heading = await page.locator("h1").first().innerText();
  const found = [];
  for (const view of VIEWS) {
    await show(page, view);
    const { cssContentSize, cssLayoutViewport } = await measure.send("Page.getLayoutMetrics");
    const overflow = cssContentSize.width - cssLayoutViewport.clientWidth;
    found.push({ ...heard, view: view.name, overflow, heading });
    if (PICTURES.includes(name)) {
      const file = `${name.replaceAll("/", "-").replace(".html", "")}-${view.name}.png`;
      await page.screenshot({ path: join(folder, file), fullPage: true });
    }
  }
  await page.close();
  return found;
}

/** Type a word into the search, and return how many pages it finds. */
async function search(view) {
  const { page, heard } = await listen("search");
  await show(page, view);
  await page.goto(`${url}/index.html`);
  if (view.width < 1000) await page.locator('label[for="__search"]').first().click();
  await page.locator("input.md-search__input").fill("rewind");
  const hits = page.locator(".md-search-result__item");
  await hits.first().waitFor({ timeout: 120_000 });
  const found = { ...heard, view: view.name, hits: await hits.count() };
  await page.close();
  return found;
}
