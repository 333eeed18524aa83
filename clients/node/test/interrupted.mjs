// Ends threads, and then the process, while the graph runs in them. test/cache.test.mjs starts it
// as a program.
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { Session } from "gptoss-node";
import { NATIVE, PACKAGE } from "./support.mjs";

const TOKENS = Array.from({ length: 900 }, (_, i) => i);

/** Runs the graph again and again; `begun` is called before the first time. */
async function run(begun) {
  const session = await Session.open(PACKAGE, NATIVE);
  begun();
  while (true) await session.forward(TOKENS, session.newCache(TOKENS.length, TOKENS.length));
}

if (isMainThread) {
  for (let i = 0; i < 4; i += 1) {
    const worker = new Worker(fileURLToPath(import.meta.url));
    await new Promise((resolve) => worker.once("message", resolve));
    await new Promise((resolve) => setTimeout(resolve, 5 + 15 * i));
    await worker.terminate();
  }
  console.log("alive");
  await run(() => setTimeout(() => process.exit(3), 50));
} else {
  await run(() => parentPort.postMessage("begun"));
}
