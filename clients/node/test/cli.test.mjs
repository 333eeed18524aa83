// The command line: documents on stdout, one line on stderr, exit codes for scripts.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { Tokenizer } from "gptoss-node";
import { changed, LIBRARY, PACKAGE, short } from "./support.mjs";

const CLI = fileURLToPath(new URL("../dist/cli.js", import.meta.url));

function run(args, library = LIBRARY) {
  const env = { ...process.env };
  delete env.GPTOSS_OPS_LIBRARY;
  if (library) env.GPTOSS_OPS_LIBRARY = library;
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
    env,
    encoding: "utf8",
  });
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
    "activations",
    "finish_reason",
    "kernels",
    "provider",
    "text",
    "timings",
    "tokens",
  ]);
  assert.deepEqual(Object.keys(answer.timings).sort(), [
    "decode_seconds",
    "decode_tokens_per_second",
    "load_seconds",
    "new_tokens",
    "prefill_seconds",
    "prefill_tokens_per_second",
    "prompt_tokens",
  ]);
  assert.deepEqual(
    [answer.kernels, answer.activations, answer.finish_reason],
    ["native", "exact", "length"],
  );
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
  const logits = changed(
    t,
    "golden/golden.json",
    ({ cases }) => (cases[0].sampled_logits[2][7] += 0.01),
  );
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

test("--stop-token and --stop end a text", () => {
  const prompt = ["generate", PACKAGE, "--prompt", short.text, "--max-new-tokens", "20", "--json"];
  const plain = JSON.parse(run(prompt).stdout);
  assert.equal(plain.tokens.length, 20);
  const ids = ["--stop-token", "2047", "--stop-token", String(short.greedy[4])];
  const byId = JSON.parse(run([...prompt, ...ids]).stdout);
  assert.deepEqual([byId.tokens, byId.finish_reason], [short.greedy.slice(0, 5), "stop"]);
  const word = plain.text.slice(10, 14);
  const byText = JSON.parse(run([...prompt, "--stop", word, "--stop", "never said"]).stdout);
  assert.deepEqual(
    [byText.text, byText.finish_reason],
    [plain.text.slice(0, plain.text.indexOf(word)), "stop"],
  );
  assert.ok(byText.tokens.length < 20);
});

test("a special token ends a text as --stop too, and is refused within one", async (t) => {
  const { added_tokens } = JSON.parse(readFileSync(join(PACKAGE, "tokenizer.json"), "utf8"));
  const special = added_tokens.find((token) => token.special).content;
  // One that the continuation says, made special.
  const folder = changed(t, "tokenizer.json", (tokenizer) => {
    const [content] = Object.entries(tokenizer.model.vocab).find(
      ([, id]) => id === short.greedy[4],
    );
    const token = {
      id: short.greedy[4],
      content,
      special: true,
      single_word: false,
      normalized: false,
    };
    tokenizer.added_tokens.push({ ...token, lstrip: false, rstrip: false });
  });
  const tokenizer = await Tokenizer.open(folder);
  const [said] = [...tokenizer.specialTokens].find(([, id]) => id === short.greedy[4]);
  await tokenizer.close();
  const prompt = [
    "generate",
    folder,
    "--prompt-tokens",
    short.token_ids.join(","),
    "--max-new-tokens",
    "20",
    "--json",
  ];
  const answer = JSON.parse(run([...prompt, "--stop", said]).stdout);
  assert.deepEqual([answer.tokens, answer.finish_reason], [short.greedy.slice(0, 5), "stop"]);
  const refused = run([...prompt, "--stop", `x${special}`]);
  assert.equal(refused.status, 2);
  assert.match(
    refused.stderr,
    /^gptoss-node: --stop: found 'x.*', expected a text without the special token/,
  );
});

test("what goes on until its length is said, where nothing ends a text", (t) => {
  const folder = changed(t, "generation_config.json", (config) => (config.eos_token_id = []));
  const { status, stderr } = run([
    "generate",
    folder,
    "--prompt-tokens",
    "1",
    "--max-new-tokens",
    "2",
    "--json",
  ]);
  assert.equal(status, 0);
  assert.match(stderr, /^gptoss-node: the package names no stop token[^\n]*\n$/);
});

const NO_SCRIPT = spawnSync("script", ["--version"]).error
  ? "found no script, which makes a terminal"
  : false;

test("control characters are escaped on a terminal alone", { skip: NO_SCRIPT }, (t) => {
  const folder = changed(t, "tokenizer.json", ({ model, added_tokens }) => {
    const taken = Object.entries(model.vocab).find(([, id]) => id === short.greedy[0])[0];
    delete model.vocab[taken];
    model.vocab["\u011b[2Jx"] = short.greedy[0]; // the byte-level spelling of ESC [2J
    model.merges = model.merges.filter(
      (merge) => ![merge].flat().join("").replaceAll(" ", "").includes(taken),
    );
    assert.ok(added_tokens.length > 0);
  });
  const args = [
    "generate",
    folder,
    "--prompt-tokens",
    short.token_ids.join(","),
    "--max-new-tokens",
    "1",
  ];
  assert.equal(run(args).stdout, "\x1b[2Jx\n");
  const command = [process.execPath, CLI, ...args].map((word) => `'${word}'`).join(" ");
  const env = { ...process.env, GPTOSS_OPS_LIBRARY: LIBRARY };
  const terminal = spawnSync("script", ["-qec", command, "/dev/null"], { env, encoding: "utf8" });
  assert.equal(terminal.stdout, "\\x1b[2Jx\r\n");
});

test("a reader that leaves ends the program without a word", () => {
  const program = `"${process.execPath}" "${CLI}" generate "${PACKAGE}"`;
  const command = `${program} --prompt-tokens 1,2 --max-new-tokens 500 | head -c 1`;
  const env = { ...process.env, GPTOSS_OPS_LIBRARY: LIBRARY };
  const { status, stderr } = spawnSync("bash", ["-c", `set -o pipefail; ${command}`], {
    env,
    encoding: "utf8",
  });
  assert.deepEqual([status, stderr], [0, ""]);
});

test("ONNX Runtime prints no line of its own before ours", (t) => {
  // A window that is not the graph's makes rings that a kernel refuses in the second call of 512
  // tokens.
  const narrow = changed(t, "manifest.json", ({ cache }) => {
    for (const layer of cache) layer.window &&= 1;
  });
  const long = Array.from({ length: 1023 }, (_, i) => i).join(",");
  const wrongHeads = changed(t, "manifest.json", ({ cache }) => (cache[0].kv_heads = 1));
  const noModel = changed(t, "manifest.json", () => undefined);
  // A graph with an empty name.
  writeFileSync(join(noModel, "model.onnx"), Buffer.from([0x3a, 0x02, 0x12, 0x00]));
  for (const [folder, kernels, prompt] of [
    [narrow, "native", long],
    [wrongHeads, "native", "1"],
    [wrongHeads, "portable", "1"],
    [noModel, "native", "1"],
    [noModel, "portable", "1"],
  ]) {
    const { status, stdout, stderr } = run([
      "generate",
      folder,
      "--prompt-tokens",
      prompt,
      "--kernels",
      kernels,
    ]);
    assert.deepEqual([status, stdout], [2, ""]);
    assert.match(stderr, /^gptoss-node: [^\n]*\n$/);
  }
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
    [
      ["generate", PACKAGE, "--prompt-tokens", "1,x"],
      /--prompt-tokens: found 'x', expected a number/,
    ],
    [["generate", PACKAGE, "--prompt-tokens", "1,5000"], /token 1: found 5000/],
    [
      ["generate", PACKAGE, "--prompt-tokens", "1", "--max-new-tokens", "0"],
      /max-new-tokens: found 0/,
    ],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--temperature=-1"], /temperature: found -1/],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--kernels", "gpu"], /kernels: found gpu/],
    [
      ["generate", PACKAGE, "--prompt-tokens", "1", "--stop-token", "x"],
      /--stop-token: found 'x', expected a number/,
    ],
    [
      ["generate", PACKAGE, "--prompt-tokens", "1", "--stop-token", "2048"],
      /--stop-token: found 2048/,
    ],
    [["generate", PACKAGE, "--prompt-tokens", "1", "--stop", ""], /--stop: found an empty text/],
    [["generate", "\x1b[31mred", "--prompt", "x"], /\\x1b\[31mred: not a package/],
  ]) {
    const { status, stdout, stderr } = run(args);
    assert.deepEqual(
      [status, stdout, stderr.trimEnd().split("\n").length],
      [2, "", 1],
      `${args}: ${stderr}`,
    );
    assert.match(stderr, message);
  }
});
