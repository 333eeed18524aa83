"""The browser client in headless Chromium: verdict, greedy tokens, errors, and the page as a person
uses it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.runtime import Sampling, Session
from support.one_run import once

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "browser"
SCREENSHOT = ROOT / "build" / "clients" / "browser.png"
PROMPT = "It was a bright morning, and she"
KERNELS = {"portable": "portable", "ort": "contrib"}
LONG = 600  # tokens: more than one call of the client takes, and far beyond the demo's window

Completed = subprocess.CompletedProcess[str]


def _run(*command: str | Path) -> Completed:
    return subprocess.run(
        [str(part) for part in command], cwd=CLIENT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Completed]:
    """Install what the client imports, where it is not yet; returns a function that runs
    `gptoss-browser`.
    """
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program}: found none on PATH, expected Node.js 20 or newer"
    once(tmp_path_factory, "browser-client", _install)
    return lambda *arguments: _run("node", "verify.mjs", *arguments)


def _install() -> None:
    if not (CLIENT / "node_modules").is_dir():
        installed = _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        assert installed.returncode == 0, installed.stderr


@pytest.fixture(scope="session", params=["portable", "ort"])
def package(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo checkpoint, exported for one target; not to be written to."""
    folder = tmp_path_factory.mktemp("browser") / request.param
    return export(demo_checkpoint, folder, target=request.param, weights="copy").folder


@pytest.fixture
def copy(demo_package: Any, tmp_path: Path) -> Path:
    """A portable package to be spoilt."""
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))


def _edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def _generate(
    client: Callable[..., Completed], folder: Path, prompt: list[int], count: int
) -> list[int]:
    tokens = ",".join(map(str, prompt))
    result = client(
        "generate", folder, "--prompt-tokens", tokens, "--max-new-tokens", str(count), "--json"
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["timings"]["prompt_tokens"] == len(prompt)
    return list(answer["tokens"])


def test_types_and_logic(client: Callable[..., Completed]) -> None:
    for command in (("npm", "run", "check"), ("npm", "test")):
        result = _run(*command)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_lockfile_names_no_registry() -> None:
    packages = json.loads((CLIENT / "package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    assert not [name for name, entry in packages.items() if "resolved" in entry]


def test_verify_passes(client: Callable[..., Completed], package: Path) -> None:
    result = client("verify", package)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    verdict = json.loads(result.stdout)
    golden = json.loads((package / "golden" / "golden.json").read_text())
    manifest = json.loads((package / "manifest.json").read_text())
    assert verdict["format"] == "gptoss-onnx-verdict"
    assert verdict["format_version"] == 1
    assert verdict["passed"] is True
    assert verdict["client"] == "browser"
    assert verdict["runtime"].startswith("onnxruntime-web ")
    assert verdict["package"] == str(package)
    assert verdict["target"] == manifest["target"]
    assert verdict["kernels"] == KERNELS[manifest["target"]]
    assert verdict["activations"] == "exact"
    assert verdict["seconds"] > 0
    assert [case["name"] for case in verdict["cases"]] == [case["name"] for case in golden["cases"]]
    for case, expected in zip(verdict["cases"], golden["cases"], strict=True):
        assert case["passed"] is True
        assert case["positions"] == len(expected["positions"])
        # Above zero: equal to the last bit would mean that nothing was computed.
        assert 0 < case["max_abs"] <= verdict["limit"]
        assert 0 <= case["logsumexp_abs"] <= verdict["limit"]
        assert case["greedy_equal"] == case["greedy_tokens"] == len(expected["greedy"])


def test_verify_fails_case_by_case(client: Callable[..., Completed], copy: Path) -> None:
    def spoil(golden: Any) -> None:
        golden["cases"][0]["sampled_logits"][-1][-1] += 0.002
        golden["cases"][1]["greedy"][5] += 1
        golden["cases"][2]["logsumexp"][0] -= 0.002

    _edit(copy / "golden" / "golden.json", spoil)
    result = client("verify", copy)
    assert result.returncode == 1, result.stderr
    verdict = json.loads(result.stdout)
    assert verdict["passed"] is False
    logits, greedy, logsumexp, untouched = verdict["cases"]
    assert [case["passed"] for case in verdict["cases"]] == [False, False, False, True]
    assert 0.0015 < logits["max_abs"] < 0.0025
    assert greedy["greedy_equal"] == 5
    assert greedy["note"].startswith("greedy token 5 is ")
    assert 0.0015 < logsumexp["logsumexp_abs"] < 0.0025
    assert untouched["note"] == ""


def test_greedy_tokens_are_those_of_golden(client: Callable[..., Completed], package: Path) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    case = next(case for case in golden["cases"] if case["name"] == "short")
    assert _generate(client, package, case["token_ids"], len(case["greedy"])) == case["greedy"]


def test_a_prompt_of_several_calls_continues_as_in_python(
    client: Callable[..., Completed], package: Path, demo_package: Any
) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    words = golden["cases"][-1]["token_ids"]
    prompt = [words[index * index % len(words)] for index in range(LONG)]
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(session.generate(prompt, Sampling(), max_new_tokens=24))
    assert _generate(client, package, prompt, 24) == expected


def test_a_float16_cache_continues_as_in_python(
    client: Callable[..., Completed], demo_checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(demo_checkpoint, tmp_path / "package", kv_dtype="float16").folder
    golden = json.loads((folder / "golden" / "golden.json").read_text())
    prompt = golden["cases"][0]["token_ids"]
    with Session.open(folder, kernels="portable", threads=1) as session:
        expected = list(session.generate(prompt, Sampling(), max_new_tokens=24))
    assert _generate(client, folder, prompt, 24) == expected


def _bfloat16(folder: Path) -> None:
    _edit(folder / "manifest.json", lambda manifest: manifest.update(kv_dtype="bfloat16"))


def _huge(folder: Path) -> None:
    _edit(
        folder / "manifest.json",
        lambda manifest: manifest["weights"]["files"][0].update(size=13_000_000_000),
    )


def _truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 4_000_000)


def _no_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _no_golden(folder: Path) -> None:
    shutil.rmtree(folder / "golden")


def _damaged_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")


def _linked_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("/etc/passwd")


def _outer_data(folder: Path) -> None:
    """Let the graph read another file, at a place where that file may well have bytes."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in tensor.external_data:
        entry.value = {"location": "/etc/passwd", "offset": "0", "length": "16"}[entry.key]
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_bfloat16, "manifest.json: kv_dtype: found bfloat16, expected float32 or float16"),
        (_huge, "weights in bytes: found 13000000000, expected at most"),
        (_truncated, "/model.safetensors: bytes: found 4000000, expected 4020016"),
        (_no_graph, "/model.onnx: found no such file, expected one, as manifest.json lists it"),
        (_no_golden, "/package/golden/golden.json: HTTP status: found 404, expected 200"),
        (_damaged_graph, "model.onnx: found a field of kind 6, expected an ONNX model"),
        (_linked_graph, "/model.onnx: found a link to /etc/passwd, expected a file in"),
        (
            _outer_data,
            "found file /etc/passwd, expected a file that the manifest lists in weights.files",
        ),
    ],
)
def test_a_broken_package_is_one_line(
    client: Callable[..., Completed], copy: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(copy)
    result = client("verify", copy)
    assert result.returncode == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_wrong_arguments_are_one_line(
    client: Callable[..., Completed], demo_package: Any, tmp_path: Path
) -> None:
    folder = str(demo_package.folder)
    for arguments, says in (
        ([], "usage: gptoss-browser verify|generate PACKAGE"),
        (["generate", folder], "usage: "),
        (["verify", str(tmp_path)], "found no manifest.json, expected a package folder"),
        (["verify", folder, "--chromium", "/nonexistent"], "/nonexistent"),
        (["verify", folder, "--nonsense"], "Unknown option '--nonsense'"),
        (
            ["generate", folder, "--prompt-tokens", "1,,2"],
            "--prompt-tokens: found nothing, expected an integer",
        ),
        (
            ["generate", folder, "--prompt-tokens", "1,x"],
            "--prompt-tokens: found x, expected an integer",
        ),
        (
            ["generate", folder, "--prompt-tokens", "1", "--max-new-tokens", "1e3"],
            "--max-new-tokens: found 1e3",
        ),
        (
            ["generate", folder, "--prompt-tokens", "1,99999"],
            "token id: found 99999, expected 0 to 2047",
        ),
        (
            ["generate", folder, "--prompt-tokens", "1", "--max-new-tokens", "0"],
            "tokens to generate: found 0",
        ),
    ):
        result = client(*arguments)
        assert result.returncode == 2, arguments
        assert result.stdout == ""
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_help_is_the_usage(client: Callable[..., Completed]) -> None:
    result = client("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: gptoss-browser ")


def test_a_continued_cache_says_what_the_whole_prompt_says(
    client: Callable[..., Completed], package: Path
) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    prompt = golden["cases"][-1]["token_ids"][:40]
    result = _run("node", "test/continue.mjs", package, ",".join(map(str, prompt)))
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["continued"] == answer["whole"]
    assert answer["refusal"].startswith("cache: found one that another call is using")
    with Session.open(package, threads=1) as session:
        sampling = Sampling(repetition_penalty=1.5, stop_tokens=())
        assert list(session.generate(prompt, sampling, max_new_tokens=16)) == answer["whole"]


def _changed(document: Any, change: Callable[[Any], None]) -> str:
    changed = json.loads(json.dumps(document))
    change(changed)
    return json.dumps(changed)


def test_files_of_strangers_end_in_one_line_of_the_page(
    client: Callable[..., Completed], demo_package: Any
) -> None:
    """The page may have another server, so it checks what `serve.mjs` would refuse."""
    folder = demo_package.folder
    manifest, golden, tokenizer = (
        json.loads((folder / name).read_text())
        for name in ("manifest.json", "golden/golden.json", "tokenizer.json")
    )
    markup = "<img src=x onerror=alert(1)>"
    slow = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    spoilt: list[tuple[dict[str, Any], str, str]] = [
        ({"path": "manifest.json", "body": "["}, "failed", "/package/manifest.json: found no JSON"),
        ({"path": "manifest.json", "body": "[" * 100_000}, "failed", "nested more than 100 deep"),
        ({"path": "manifest.json", "body": "1" * 5000}, "failed", "a number of 5000 digits"),
        (
            {"path": "manifest.json", "body": " " * 16_000_001},
            "failed",
            "bytes: found more than 16000000, expected",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it.update(target=f"{markup}\u001b[2J\n")),
            },
            "failed",
            f"manifest.json: target: found {markup}\\u001b[2J\\u000a, expected portable or ort",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it["cache"][0].update(kv_heads=-1)),
            },
            "failed",
            "manifest.json: cache[0].kv_heads: found -1, expected an integer",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it["cache"][0].update(head_dim=64)),
            },
            "ready",
            "model.onnx: ONNX Runtime cannot run it (",
        ),
        ({"path": "model.onnx", "body": "\u00ff" * 400_000}, "failed", "model.onnx: found "),
        (
            {"path": "model.safetensors", "body": "x" * 4_020_017},
            "failed",
            "bytes: found more than 4020016, expected",
        ),
        (
            {"path": "model.safetensors", "body": "x" * 4_020_016},
            "failed",
            "model.safetensors: safetensors header",
        ),
        (
            {"path": "tokenizer.json", "body": "{}"},
            "failed",
            "tokenizer.json: the tokenizer library cannot read it (",
        ),
        (
            {"path": "generation_config.json", "body": "[]"},
            "failed",
            "generation_config.json: found a list of 0",
        ),
        (
            {"path": "generation_config.json", "body": '{"eos_token_id": -1}'},
            "failed",
            "eos_token_id: found -1, expected",
        ),
        (
            {"path": "golden/golden.json", "body": "{}"},
            "ready",
            "golden.json: format: found nothing",
        ),
        (
            {
                "path": "golden/golden.json",
                "body": _changed(golden, lambda it: it["cases"][0]["greedy"].append(9999)),
            },
            "ready",
            "golden.json: cases[0].greedy[64]: found 9999, expected token ids, 0 to 2047",
        ),
        (
            {
                "path": "tokenizer.json",
                "body": _changed(tokenizer, lambda it: it.update(pre_tokenizer=slow)),
                "click": "Generate",
                "prompt": "a" * 60 + "!",
            },
            "failed",
            "tokenizer.json: cannot encode the prompt in time: found no end within 10 s",
        ),
    ]
    for case, state, _ in spoilt:
        if state == "ready":
            case.setdefault("click", "Verify")
    answers = _strange(folder, [case for case, _, _ in spoilt])
    for (case, state, says), answer in zip(spoilt, answers, strict=True):
        assert answer["state"] == state, (case["path"], answer)
        assert says in answer["error"], case["path"]
        assert "\n" not in answer["error"]
        assert answer["thrown"] == []
        assert answer["foreign"] == 0


def test_what_strangers_call_things_is_shown_as_text(
    client: Callable[..., Completed], demo_package: Any
) -> None:
    golden = json.loads((demo_package.folder / "golden" / "golden.json").read_text())
    markup = "<img src=x onerror=alert(1)>"
    golden["cases"] = [{**golden["cases"][0], "name": markup}]
    case = {"path": "golden/golden.json", "body": json.dumps(golden), "click": "Verify"}
    (answer,) = _strange(demo_package.folder, [case])
    assert (answer["state"], answer["error"], answer["thrown"]) == ("ready", "", [])
    assert markup in answer["cases"]
    assert answer["foreign"] == 0


def test_a_package_without_stop_tokens_says_so(
    client: Callable[..., Completed], demo_package: Any
) -> None:
    (answer,) = _strange(demo_package.folder, [{"path": "generation_config.json", "body": "{}"}])
    assert "no stop tokens: a text ends after the new tokens asked for" in answer["facts"]


def test_what_is_typed_into_the_form_is_checked(
    client: Callable[..., Completed], demo_package: Any
) -> None:
    typed = [
        ("New tokens", "", "tokens to generate: found nothing, expected an integer above 0"),
        ("New tokens", "1e400", "tokens to generate: found NaN"),
        ("New tokens", "0", "tokens to generate: found 0"),
        ("New tokens", "1.5", "tokens to generate: found 1.5"),
        (
            "New tokens",
            "9999999",
            "tokens in bytes: found 15360847872, expected at most 1073741824; ask for fewer",
        ),
        (
            "New tokens",
            "999999999",
            "capacity in tokens: found 1000000009, expected an integer, 1 to 16777216",
        ),
        ("Temperature", "", "temperature: found nothing, expected a finite number, 0 or more"),
        ("Temperature", "-1", "temperature: found -1"),
        ("Temperature", "1e400", "temperature: found NaN"),
        ("Temperature", "e", "temperature: found NaN"),
        ("Top-k", "1.5", "top-k: found 1.5, expected an integer, 0 (off) or more"),
        ("Top-k", "", "top-k: found nothing"),
        ("Top-p", "0", "top-p: found 0, expected a number above 0, at most 1"),
        ("Min-p", "", "min-p: found nothing, expected a number from 0 to 1"),
        (
            "Repetition penalty",
            "0",
            "repetition penalty: found 0, expected a finite number above 0",
        ),
        ("Seed", "-", "seed: found NaN, expected an integer, 0 or more, or none"),
    ]
    cases = [
        {"path": "", "body": None, "click": "Generate", "prompt": PROMPT, "fields": {label: value}}
        for label, value, _ in typed
    ]
    cases.append({"path": "", "body": None, "click": "Generate", "prompt": "", "fields": {}})
    cases.append(
        {
            "path": "",
            "body": None,
            "click": "Generate",
            "prompt": PROMPT,
            "fields": {"Temperature": "1e-46", "New tokens": "8"},
        }
    )
    *answers, empty, tiny = _strange(demo_package.folder, cases)
    for (label, value, says), answer in zip(typed, answers, strict=True):
        assert (answer["state"], answer["thrown"]) == ("ready", []), (label, value)
        assert says in answer["error"], (label, value)
    assert empty["error"].startswith("prompt: found no tokens")
    # So low a temperature leaves the most probable token alone.
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(
            session.generate(session.tokenizer.encode(PROMPT), Sampling(), max_new_tokens=8)
        )
        assert tiny["text"] == session.tokenizer.decode(expected)


def _strange(folder: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Open the page once a case, with another file in the place of one of the package; returns what
    was seen.
    """
    command = ["node", "test/stranger.mjs", str(folder)]
    result = subprocess.run(
        command, cwd=CLIENT, input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_without_a_tokenizer_the_prompt_is_token_ids(
    client: Callable[..., Completed], tiny_package: Any
) -> None:
    seen = json.loads(_drive(tiny_package.folder, "1, 2 3", tiny_package.folder.parent / "ids.png"))
    with Session.open(tiny_package.folder, threads=1) as session:
        expected = list(session.generate([1, 2, 3], Sampling(), max_new_tokens=64))
    assert [int(token) for token in seen["generated"]["text"].split()] == expected


def test_the_page_as_a_person_uses_it(client: Callable[..., Completed], demo_package: Any) -> None:
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    SCREENSHOT.unlink(missing_ok=True)
    seen = json.loads(_drive(demo_package.folder, PROMPT, SCREENSHOT))
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(
            session.generate(session.tokenizer.encode(PROMPT), Sampling(), max_new_tokens=64)
        )
        assert seen["generated"]["text"] == session.tokenizer.decode(expected)
    texts = seen["generated"]["texts"]
    assert len(set(texts)) > 32  # streamed, not shown at once
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    assert "64 tokens · " in seen["generated"]["speed"]
    assert float(seen["generated"]["speed"].split(" · ")[1].removesuffix(" tokens/s")) > 0
    assert seen["verified"].startswith("Passed in ")
    assert "stopped" in seen["stopped"]
    assert int(seen["stopped"].split()[0]) < 900
    assert seen["console"] == []
    assert seen["threads"] is True
    assert [url for url in seen["requests"] if not url.startswith(seen["url"])] == []
    assert SCREENSHOT.read_bytes().startswith(b"\x89PNG")


def _drive(folder: Path, prompt: str, screenshot: Path) -> str:
    result = _run("node", "test/drive.mjs", folder, prompt, screenshot)
    assert result.returncode == 0, result.stderr
    return result.stdout
