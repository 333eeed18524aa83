// The command line: documents on stdout, one line on stderr, exit codes for scripts.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { changed, LIBRARY, PACKAGE, short } from "./support.mjs";

const CLI = fileURLToPath(new URL("../dist/cli.js", import.meta.url));

function run(args, library = LIBRARY) {
  const env = { ...process.env };
  delete env.GPTOSS_OPS_LIBRARY;
  if (library) env.GPTOSS_OPS_LIBRARY = library;
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], { env, encoding: "utf8" });
  return { status, stdout, stderr };
}

test("generate prints the document that gptoss-onnx generate --json prints", () => {
  const ids = short.token_ids.join(",");
  const command = ["generate", PACKAGE, "--prompt-tokens", ids, "--max-new-tokens", "8", "--json"];
  const { status, stdout, stderr } = run(command);
  assert.deepEqual([status, stderr], [0, ""]);
  const answer = JSON.parse(stdout);
  assert.deepEqual(answer.tokens, short.greedy.slice(0, 8));
  assert.deepEqual(Object.keys(answer).sort(), [
    "activations", "finish_reason", "kernels", "provider", "text", "timings", "tokens",
  ]);
  assert.deepEqual(Object.keys(answer.timings).sort(), [
    "decode_seconds", "decode_tokens_per_second", "load_seconds", "new_tokens", "prefill_seconds",
    "prefill_tokens_per_second", "prompt_tokens",
  ]);
  assert.deepEqual([answer.kernels, answer.activations, answer.finish_reason], ["native", "exact", "length"]);
  assert.ok(answer.timings.decode_tokens_per_second > 0);
  const text = run(["generate", PACKAGE, "--prompt", short.text, "--max-new-tokens", "8"]);
  assert.equal(text.stdout, `${answer.text}\n`);
});

test("sampling flags reach the sampler", () => {
  const flags = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01"];
  const prompt = ["--prompt", short.text, "--max-new-tokens", "12", "--repetition-penalty", "1.3"];
  const draw = (seed) => run(["generate", PACKAGE, ...prompt, "--seed", seed, ...flags]);
  assert.equal(draw("5").status, 0);
  assert.equal(draw("5").stdout, draw("5").stdout);
  assert.notEqual(draw("5").stdout, draw("6").stdout);
});

test("verify exits 1 where a golden number differs", (t) => {
  const good = run(["verify", PACKAGE]);
  assert.deepEqual([good.status, JSON.parse(good.stdout).passed], [0, true]);
  const folder = changed(t, "golden/golden.json", ({ cases }) => (cases[1].greedy[10] += 1));
  const bad = run(["verify", folder]);
  const { passed, cases } = JSON.parse(bad.stdout);
  assert.deepEqual([bad.status, passed, cases[0].passed], [1, false, true]);
  assert.deepEqual([cases[1].passed, cases[1].greedy_equal], [false, 10]);
  const logits = changed(t, "golden/golden.json", ({ cases }) => (cases[0].sampled_logits[2][7] += 0.01));
  assert.equal(run(["verify", logits]).status, 1);
});

test("without the library the bodies run, said once; native refuses", () => {
  const ids = ["--prompt-tokens", "1,2", "--max-new-tokens", "2", "--json"];
  const portable = run(["generate", PACKAGE, ...ids], "");
  assert.equal(portable.status, 0);
  assert.equal(JSON.parse(portable.stdout).kernels, "portable");
  assert.match(portable.stderr, /^gptoss-node: portable kernels run: found no library [^\n]*\n$/);
  const native = run(["generate", PACKAGE, ...ids, "--kernels", "native"], "");
  assert.equal(native.status, 2);
  assert.match(native.stderr, /^gptoss-node: kernels native: [^\n]*\n$/);
});

test("wrong input exits 2 with one line", () => {
  for (const [args, message] of [
    [[], /found no command/],
    [["frobnicate"], /found frobnicate/],
    [["verify"], /found 0 packages/],
    [["verify", "nowhere"], /not a package/],
    [["verify", PACKAGE, "--prompt", "x"], /prompt/],
    [["generate", PACKAGE], /expected one of them/],
    [["generate", PACKAGE, "--prompt", ""], /no token/],
    [["generate", PACKAGE, "--prompt-tokens", "1,x"], /--prompt-tokens: found 'x', expected a number/],
    [["generate", PACKAGE, "--prompt-tokens", "1,5000"], /token 1: found 5000/],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--max-new-tokens", "0"], /max-new-tokens: found 0/],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--temperature=-1"], /temperature: found -1/],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--kernels", "gpu"], /kernels: found gpu/],
  ]) {
    const { status, stdout, stderr } = run(args);
    assert.deepEqual([status, stdout, stderr.trimEnd().split("\n").length], [2, "", 1], `${args}: ${stderr}`);
    assert.match(stderr, message);
  }
});
