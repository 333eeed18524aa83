/**
 * Uses the chat page of servers in headless Chromium as a person does, and prints as JSON what was
 * seen: node tests/clients/chat_page.mjs CHROMIUM FOLDER SETTING; the screenshots go to FOLDER.
 * SETTING is JSON: the servers' urls, the key of one of them, and what to say for which answer.
 */
import { createRequire } from "node:module";
import { join } from "node:path";

// playwright-core is what the browser client's tests use.
const client = new URL("../../clients/browser/package.json", import.meta.url);
const { chromium } = createRequire(client)("playwright-core");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic"];
const VIEWS = [
  { name: "desktop", width: 1280, height: 900, scheme: "light" },
  { name: "desktop-dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone", width: 360, height: 740, scheme: "light" },
  { name: "phone-dark", width: 360, height: 740, scheme: "dark" },
];
const PATIENCE = 60_000; // milliseconds for anything that is waited for

const [program, folder, setting] = process.argv.slice(2);
const { url, locked, key, say } = JSON.parse(setting);
const browser = await chromium.launch({ executablePath: program, args: FLAGS });
const seen = { views: [] };
for (const view of VIEWS) seen.views.push(await visit(url, view, talk));
seen.stopped = await visit(url, VIEWS[0], stop);
seen.wrong = await visit(url, VIEWS[0], goWrong);
seen.locked = await visit(locked, VIEWS[3], unlock);
await browser.close();
console.log(JSON.stringify(seen));

/** Open the page in one view, do something there, and return what was seen. */
async function visit(where, view, act) {
  const context = await browser.newContext({
    viewport: { width: view.width, height: view.height },
    colorScheme: view.scheme,
    isMobile: view.width < 600,
    hasTouch: view.width < 600,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const found = { view: view.name, console: [], elsewhere: [], asked: [], dialogs: 0 };
  page.on("console", (message) => found.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => found.console.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(`${where}/`) && to !== "data:,") found.elsewhere.push(to);
    if (request.method() === "POST") found.asked.push(request.postDataJSON());
  });
  page.on("dialog", (dialog) => {
    found.dialogs += 1;
    dialog.dismiss();
  });
  await page.goto(`${where}/`);
  const shoot = (name) => page.screenshot({ path: join(folder, `${name}-${view.name}.png`) });
  await act(page, found, shoot);
  const measure = await context.newCDPSession(page);
  const { cssContentSize, cssLayoutViewport } = await measure.send("Page.getLayoutMetrics");
  found.overflow = cssContentSize.width - cssLayoutViewport.clientWidth;
  await context.close();
  return found;
}

/** Talk: settings, a message of two lines, an answer with thoughts, and a second turn. */
async function talk(page, found, shoot) {
  await known(page);
  found.model = await page.locator("h1 > span").innerText();
  found.focused = await page.evaluate(() => document.activeElement?.id);
  await shoot("welcome");
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("System prompt").fill("Be brief.");
  await page.getByLabel("Reasoning effort").selectOption("low");
  await page.getByLabel("Temperature").fill("0.5");
  await shoot("settings");
  found.tree = await page.locator("body").ariaSnapshot();
  await page.getByRole("button", { name: "Settings" }).click();
  const message = page.getByRole("textbox", { name: "Message" });
  await message.pressSequentially("Why are there tides?");
  await message.press("Shift+Enter");
  await message.pressSequentially(say.plain);
  await message.press("Enter");
  await answered(page, 1);
  await shoot("answer");
  const turn = page.locator(".turn.answer").first();
  found.user = await page.locator(".turn.user .text").innerText();
  found.folded = !(await turn.locator(".thoughts").isVisible());
  found.summary = await turn.locator("summary").innerText();
  await turn.locator("summary").click();
  found.thoughts = await turn.locator(".thoughts").innerText();
  found.facts = await turn.locator(".facts").innerText();
  found.blocks = await turn
    .locator(".text > *")
    .evaluateAll((blocks) => blocks.map((block) => block.tagName.toLowerCase()));
  found.code = await turn.locator("pre").innerText();
  await page.evaluate(() => document.getElementById("scroll")?.scrollTo(0, 0));
  await shoot("thoughts");
  await message.fill(say.hostile);
  await page.getByRole("button", { name: "Send" }).click();
  await answered(page, 2);
  await shoot("hostile");
  found.hostile = await page.locator(".turn.answer .text").last().innerText();
  found.made = await page.locator("#log :is(img, script, a, iframe, svg, style)").count();
  found.atEnd = await page.evaluate(() => {
    const it = document.getElementById("scroll");
    return it.scrollHeight - it.scrollTop - it.clientHeight < 2;
  });
  await page.getByRole("button", { name: "New chat" }).click();
  found.left = await page.locator(".turn").count();
  found.welcomed = await page.getByText("What is on your mind?").isVisible();
}

/** Stop a long answer with the button, another with Escape, and one by a new chat. */
async function stop(page, found, shoot) {
  await known(page);
  const message = page.getByRole("textbox", { name: "Message" });
  found.facts = [];
  found.active = [];
  found.early = [];
  for (const [index, end] of ["button", "key"].entries()) {
    await begin(page, message, index);
    found.early.push(await page.locator(".turn.answer .text").last().innerText());
    if (end === "key") await page.keyboard.press("Escape");
    else await page.getByRole("button", { name: "Stop" }).click();
    await answered(page, index + 1);
    found.facts.push(await page.locator(".facts").last().innerText());
    found.active.push(await idle());
  }
  await shoot("stopped");
  await begin(page, message, 2);
  await page.getByRole("button", { name: "New chat" }).click();
  found.active.push(await idle());
  await message.fill(say.plain);
  await message.press("Enter");
  await answered(page, 1);
  found.after = await page.locator(".facts").innerText();
}

/** Say what the server refuses, a setting that cannot be, and reload while a key is missing. */
async function goWrong(page, found, shoot) {
  await known(page);
  const message = page.getByRole("textbox", { name: "Message" });
  await message.fill("x".repeat(20_000));
  await message.press("Enter");
  await page.locator("#error:not(:empty)").waitFor();
  found.refused = await page.locator("#error").innerText();
  found.kept = (await message.inputValue()).length;
  found.turns = await page.locator(".turn").count();
  await shoot("refused");
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("Temperature").fill("7");
  const before = found.asked.length;
  await message.fill("Hello");
  await message.press("Enter");
  found.invalid = await page.locator("#error").innerText();
  found.focused = await page.evaluate(() => document.activeElement?.id);
  found.sent = found.asked.length - before;
  await shoot("invalid");
}

/** Come to a server that wants a key: with a wrong one, and with the right one. */
async function unlock(page, found, shoot) {
  const field = page.getByLabel("This server asks for an API key.");
  await field.waitFor();
  await shoot("door");
  await field.fill("no such key");
  await field.press("Enter");
  await page.locator("#error:not(:empty)").waitFor();
  found.refused = await page.locator("#error").innerText();
  await field.fill(key);
  await field.press("Enter");
  await known(page);
  found.door = await field.isVisible();
  await page.reload();
  await known(page);
  found.stored = await page.evaluate(() => [sessionStorage.length, localStorage.length]);
  const message = page.getByRole("textbox", { name: "Message" });
  await message.fill(say.plain);
  await message.press("Enter");
  await answered(page, 1);
  found.facts = await page.locator(".facts").innerText();
}

/** Ask for the long answer, and wait for its first words. */
async function begin(page, message, turns) {
  await message.fill(say.long);
  await message.press("Enter");
  await page.locator(".turn.answer .text > *").nth(turns).waitFor();
}

function known(page) {
  return page.waitForFunction(() => document.title !== "Chat · gptoss-onnx");
}

function answered(page, turns) {
  return page.locator(".facts:not(:empty)").nth(turns - 1).waitFor();
}

/** Wait until no slot runs any more, and return how many do: 0, or more where they never end. */
async function idle() {
  for (let left = 100; ; left -= 1) {
    const text = await (await fetch(`${url}/metrics`)).text();
    const active = Number(/^gptoss_slots_active (\S+)$/m.exec(text)?.[1]);
    if (active === 0 || left === 0) return active;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
