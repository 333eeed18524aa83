"""The browser client in headless Chromium: verdict, greedy tokens, errors, and the page as a person uses it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

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
    return subprocess.run([str(part) for part in command], cwd=CLIENT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Completed]:
    """Install what the client imports, where it is not yet; returns a function that runs `gptoss-browser`."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program}: found none on PATH, expected Node.js 20 or newer"
    once(tmp_path_factory, "browser-client", _install)
    return lambda *arguments: _run("node", "verify.mjs", *arguments)


def _install() -> None:
    if not (CLIENT / "node_modules").is_dir():
        installed = _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        assert installed.returncode == 0, installed.stderr


@pytest.fixture(scope="session", params=["portable", "ort"])
def package(request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def _generate(client: Callable[..., Completed], folder: Path, prompt: list[int], count: int) -> list[int]:
    tokens = ",".join(map(str, prompt))
    result = client("generate", folder, "--prompt-tokens", tokens, "--max-new-tokens", str(count), "--json")
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
    _edit(folder / "manifest.json", lambda manifest: manifest["weights"]["files"][0].update(size=13_000_000_000))


def _truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 4_000_000)


def _no_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _no_golden(folder: Path) -> None:
    shutil.rmtree(folder / "golden")


def _damaged_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_bfloat16, "manifest.json: kv_dtype: found bfloat16, expected float32 or float16"),
        (_huge, "weights in bytes: found 13000000000, expected at most"),
        (_truncated, "/package/model.safetensors: bytes: found 4000000, expected"),
        (_no_graph, "/package/model.onnx: HTTP status: found 404, expected 200"),
        (_no_golden, "/package/golden/golden.json: HTTP status: found 404, expected 200"),
        (_damaged_graph, "model.onnx: ONNX Runtime cannot open it"),
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


def test_wrong_arguments_are_one_line(client: Callable[..., Completed], demo_package: Any, tmp_path: Path) -> None:
    folder = str(demo_package.folder)
    for arguments, says in (
        ([], "usage: gptoss-browser verify PACKAGE"),
        (["generate", folder], "usage: "),
        (["verify", str(tmp_path)], "found no manifest.json, expected a package folder"),
        (["verify", folder, "--chromium", "/nonexistent"], "/nonexistent"),
        (["generate", folder, "--prompt-tokens", "1,99999"], "token id: found 99999, expected 0 to 2047"),
        (["generate", folder, "--prompt-tokens", "1", "--max-new-tokens", "0"], "tokens to generate: found 0"),
    ):
        result = client(*arguments)
        assert result.returncode == 2, arguments
        assert result.stdout == ""
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_without_a_tokenizer_the_prompt_is_token_ids(client: Callable[..., Completed], tiny_package: Any) -> None:
    seen = json.loads(_drive(tiny_package.folder, "1, 2 3", tiny_package.folder.parent / "ids.png"))
    with Session.open(tiny_package.folder, threads=1) as session:
        expected = list(session.generate([1, 2, 3], Sampling(), max_new_tokens=64))
    assert [int(token) for token in seen["generated"]["text"].split()] == expected


def test_the_page_as_a_person_uses_it(client: Callable[..., Completed], demo_package: Any) -> None:
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    SCREENSHOT.unlink(missing_ok=True)
    seen = json.loads(_drive(demo_package.folder, PROMPT, SCREENSHOT))
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(session.generate(session.tokenizer.encode(PROMPT), Sampling(), max_new_tokens=64))
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
