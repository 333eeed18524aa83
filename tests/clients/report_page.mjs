/**
 * Opens pages of reports in headless Chromium and prints as JSON what was seen:
 * node tests/clients/report_page.mjs CHROMIUM FOLDER FILE...; the screenshots go to FOLDER.
 */
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";

// playwright-core is what the browser client's tests use.
const client = new URL("../../clients/browser/package.json", import.meta.url);
const { chromium } = createRequire(client)("playwright-core");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic"];
const VIEWS = [
  { name: "desktop", width: 1280, height: 900, scheme: "light", scripts: true },
  { name: "desktop-dark", width: 1280, height: 900, scheme: "dark", scripts: false },
  { name: "phone", width: 360, height: 780, scheme: "light", scripts: false },
  { name: "phone-dark", width: 360, height: 780, scheme: "dark", scripts: true },
];

const [program, folder, ...files] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: program, args: FLAGS });
const seen = [];
for (const file of files) {
  // Hostile texts: those views in which a script could run.
  const hostile = basename(file).startsWith("hostile");
  const views = hostile ? VIEWS.filter((view) => view.scripts) : VIEWS;
  for (const view of views) seen.push(await look(file, view));
}
await browser.close();
console.log(JSON.stringify(seen));

/** Open one page in one view, and return what was seen. */
async function look(file, view) {
  const url = pathToFileURL(file).href;
  const context = await browser.newContext({
    viewport: { width: view.width, height: view.height },
    colorScheme: view.scheme,
    javaScriptEnabled: view.scripts,
    isMobile: view.width < 600,
  });
  const page = await context.newPage();
  const found = { file, view: view.name, console: [], requests: [], dialogs: 0 };
  page.on("console", (message) => found.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => found.console.push(`error: ${error.message}`));
  page.on("request", (request) => found.requests.push(request.url()));
  page.on("dialog", (dialog) => {
    found.dialogs += 1;
    dialog.dismiss();
  });
  await page.goto(url);
  const name = `${basename(file, ".html")}-${view.name}.png`;
  // A page of hostile texts is too long for one picture.
  const fullPage = !name.startsWith("hostile");
  await page.screenshot({ path: join(folder, name), fullPage });
  const client = await context.newCDPSession(page);
  const { cssContentSize, cssLayoutViewport } = await client.send("Page.getLayoutMetrics");
  found.requests = found.requests.filter((request) => request !== url && request !== "data:,");
  found.overflow = cssContentSize.width - cssLayoutViewport.clientWidth;
  found.screenshot = join(folder, name);
  // `:visible` is of the test library: it needs no script in the page.
  found.verdict = await page.locator("header .verdict").innerText();
  found.rows = await page.locator(".matrix tbody tr:visible").count();
  found.open = await page.locator("#details > details[open]").count();
  const closed = page.locator("#details > details:not([open]) > summary").first();
  if (await closed.count()) {
    await closed.click();
    found.opened = (await page.locator("#details > details[open]").count()) - found.open;
  }
  const links = page.locator(".matrix td a");
  if (await links.count()) {
    await links.last().click();
    found.target = await page.locator(".panel:target").first().isVisible();
  }
  await context.close();
  return found;
}
