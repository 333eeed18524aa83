"""The browser client in headless Chromium, on its command line: verdict, greedy tokens, errors."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.runtime import Sampling, Session
from support.browser_client import CLIENT, BrowserClient

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(600)]

KERNELS = {"portable": "portable", "ort": "contrib"}
LONG = 600  # tokens: more than one call of the client takes, and far beyond the demo's window


@pytest.fixture(scope="session", params=["portable", "ort"])
def package(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo checkpoint, exported for one target; not to be written to."""
    if request.param == "ort":  # onnxruntime-web 1.30 multiplies no MXFP4
        folder = tmp_path_factory.mktemp("browser") / request.param
        return export(demo_checkpoint, folder, target="ort", experts="int8").folder
    return Path(request.getfixturevalue("demo_package").folder)


@pytest.fixture
def copy(demo_package: Any, tmp_path: Path) -> Path:
    """A portable package to be spoilt."""
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))


def _edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def _generate(browser: BrowserClient, folder: Path, prompt: list[int], count: int) -> list[int]:
    tokens = ",".join(map(str, prompt))
    result = browser.run(
        "generate", folder, "--prompt-tokens", tokens, "--max-new-tokens", str(count), "--json"
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["timings"]["prompt_tokens"] == len(prompt)
    return list(answer["tokens"])


def test_types_and_logic(browser: BrowserClient) -> None:
    for command in (("npm", "run", "check"), ("npm", "test")):
        result = browser.call(*command)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_lockfile_names_no_registry() -> None:
    packages = json.loads((CLIENT / "package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    assert not [name for name, entry in packages.items() if "resolved" in entry]


def test_verify_passes(browser: BrowserClient, package: Path) -> None:
    result = browser.run("verify", package)
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


def test_verify_fails_case_by_case(browser: BrowserClient, copy: Path) -> None:
    def spoil(golden: Any) -> None:
        golden["cases"][0]["sampled_logits"][-1][-1] += 0.002
        golden["cases"][1]["greedy"][5] += 1
        golden["cases"][2]["logsumexp"][0] -= 0.002

    _edit(copy / "golden" / "golden.json", spoil)
    result = browser.run("verify", copy)
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


def test_greedy_tokens_are_those_of_golden(browser: BrowserClient, package: Path) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    case = next(case for case in golden["cases"] if case["name"] == "short")
    assert _generate(browser, package, case["token_ids"], len(case["greedy"])) == case["greedy"]


def test_a_prompt_of_several_calls_continues_as_in_python(
    browser: BrowserClient, package: Path, demo_package: Any
) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    words = golden["cases"][-1]["token_ids"]
    prompt = [words[index * index % len(words)] for index in range(LONG)]
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(session.generate(prompt, Sampling(), max_new_tokens=24))
    assert _generate(browser, package, prompt, 24) == expected


def test_a_float16_cache_continues_as_in_python(
    browser: BrowserClient, demo_checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(demo_checkpoint, tmp_path / "package", kv_dtype="float16").folder
    golden = json.loads((folder / "golden" / "golden.json").read_text())
    prompt = golden["cases"][0]["token_ids"]
    with Session.open(folder, kernels="portable", threads=1) as session:
        expected = list(session.generate(prompt, Sampling(), max_new_tokens=24))
    assert _generate(browser, folder, prompt, 24) == expected


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
    browser: BrowserClient, copy: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(copy)
    result = browser.run("verify", copy)
    assert result.returncode == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_wrong_arguments_are_one_line(
    browser: BrowserClient, demo_package: Any, tmp_path: Path
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
        result = browser.run(*arguments)
        assert result.returncode == 2, arguments
        assert result.stdout == ""
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_help_is_the_usage(browser: BrowserClient) -> None:
    result = browser.run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: gptoss-browser ")


def test_a_continued_cache_says_what_the_whole_prompt_says(
    browser: BrowserClient, package: Path
) -> None:
    golden = json.loads((package / "golden" / "golden.json").read_text())
    prompt = golden["cases"][-1]["token_ids"][:40]
    result = browser.call("node", "test/continue.mjs", package, ",".join(map(str, prompt)))
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["continued"] == answer["whole"]
    assert answer["refusal"].startswith("cache: found one that another call is using")
    with Session.open(package, threads=1) as session:
        sampling = Sampling(repetition_penalty=1.5, stop_tokens=())
        assert list(session.generate(prompt, sampling, max_new_tokens=16)) == answer["whole"]
