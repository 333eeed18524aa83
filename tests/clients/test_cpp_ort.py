"""Packages of target ort in the C++ client, which runs them without our library: on ONNX Runtime's
own MXFP4, and on 8-bit integers of the same values.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import Session
from support.cpp_client import Client, change_manifest, run
from support.expert_bytes import by_columns, change_experts, shifted
from support.stranger_graph import change_graph
from support.tolerances import CLIENT_LOGITS

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

PROMPT = [1428, 304, 258, 269, 352, 351, 968, 11, 282, 330]
GREEDY = 64
VOCAB = 2048
WINDOW = 32


@pytest.fixture(params=["mxfp4", "int8"])
def package(
    request: pytest.FixtureRequest, ort_package: Package, ort_int8_package: Package
) -> Path:
    """A package with experts of each kind; not to be written to."""
    return {"mxfp4": ort_package, "int8": ort_int8_package}[request.param].folder


@pytest.fixture
def copy(ort_package: Package, tmp_path: Path) -> Path:
    """A package on MXFP4 for a test to change."""
    folder = Path(shutil.copytree(ort_package.folder, tmp_path / "package"))
    change_manifest(folder, "weights", "mode", value="copy")
    return folder


def verdict_of(client: Client, package: Path, *words: str) -> dict[str, Any]:
    result = run(client.program, package, "--verify", "--json", "--threads", "1", *words)
    assert result.code in (0, 1), result.err
    assert result.json["passed"] == (result.code == 0)
    return result.json


def test_verify_passes(client: Client, package: Path) -> None:
    verdict = verdict_of(client, package)
    assert verdict["passed"] is True, verdict
    assert (verdict["target"], verdict["kernels"], verdict["activations"]) == (
        "ort",
        "contrib",
        "exact",
    )
    for case in verdict["cases"]:
        # Above zero: equal to the last bit would mean that nothing was computed.
        assert 0 < case["max_abs"] <= verdict["limit"]
        assert case["greedy_equal"] == case["greedy_tokens"] == GREEDY


def test_verify_fails_on_blocks_by_columns(
    client: Client, ort_package: Package, tmp_path: Path
) -> None:
    """ONNX Runtime computes with them and says nothing; the golden vectors are what notices."""
    changed = change_experts(ort_package.folder, tmp_path / "package", "blocks", by_columns)
    verdict = verdict_of(client, changed)
    assert not any(case["passed"] for case in verdict["cases"])


def test_verify_fails_on_scales_shifted_by_one(
    client: Client, ort_package: Package, tmp_path: Path
) -> None:
    changed = change_experts(ort_package.folder, tmp_path / "package", "scales", shifted)
    assert not any(case["passed"] for case in verdict_of(client, changed)["cases"])


def test_greedy_tokens_are_those_of_the_python_session(
    client: Client, package: Path, demo_package: Package
) -> None:
    found = client.generate(package, PROMPT, "--max-new-tokens", str(GREEDY))
    with Session.open(demo_package.folder, threads=1) as session:
        assert found["tokens"] == list(session.generate(PROMPT, max_new_tokens=GREEDY))
    assert (found["kernels"], found["provider"]) == ("contrib", "cpu")
    said = client.run(package, "--prompt-tokens", "1,2", "--max-new-tokens", "1")
    assert said.err == "contrib kernels (ONNX Runtime's own), exact\n"


@pytest.mark.parametrize(("chunk", "first"), [(512, 0), (1, 0), (7, 0), (48, 50), (7, 90)])
def test_chunks_and_calls_may_be_cut_anywhere(
    client: Client, package: Path, demo_package: Package, chunk: int, first: int
) -> None:
    """All logits of a prompt far beyond the window, and far beyond one call."""
    tokens = [int(token) for token in np.random.default_rng(3).integers(0, VOCAB, 150)]
    found = client.score(package, tokens, chunk, first, VOCAB, library="-")
    with Session.open(demo_package.folder, threads=1) as session:
        expected = session.score(tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLIENT_LOGITS["float32"])


def test_a_cache_in_float16(client: Client, demo_checkpoint: Path, tmp_path: Path) -> None:
    folder = export(demo_checkpoint, tmp_path / "package", target="ort", kv_dtype="float16").folder
    found = client.generate(folder, PROMPT, "--max-new-tokens", str(GREEDY))
    with Session.open(folder, threads=1) as session:
        assert found["tokens"] == list(session.generate(PROMPT, max_new_tokens=GREEDY))


def test_a_capacity_below_the_window(client: Client, package: Path) -> None:
    """Its window layers take their whole window all the same."""
    tokens = client.generate(package, PROMPT, "--max-new-tokens", str(GREEDY))["tokens"]
    words = ("--max-new-tokens", str(GREEDY), "--capacity", str(len(PROMPT) + 4))
    full = client.generate(package, PROMPT, *words)
    assert len(PROMPT) + 4 < WINDOW
    assert (full["tokens"], full["finish_reason"]) == (tokens[:5], "length")


def test_a_cache_goes_on_and_many_run_at_once(client: Client, package: Path) -> None:
    words = (package, "-", "24", "1.3", *map(str, PROMPT))
    whole, parts = run(client.probe, "continue", *words).out.splitlines()
    assert parts == whole
    words = (package, "-", "24", "4", *map(str, PROMPT))
    expected = client.generate(package, PROMPT, "--max-new-tokens", "24")["tokens"]
    lines = run(client.probe, "race", *words).out.splitlines()
    assert [list(map(int, line.split())) for line in lines] == [expected] * 4


def test_activations_int8_are_those_of_integer_experts(
    client: Client, ort_package: Package, ort_int8_package: Package
) -> None:
    verdict = verdict_of(client, ort_int8_package.folder, "--activations", "int8")
    assert verdict["passed"] is False  # lossy, and the verdict sees it
    line = client.refused(ort_package.folder, "--verify", "--activations", "int8")
    assert "activations for target ort: found int8, expected those that the package has: " in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kernels", "native"), "kernels for target ort: found native, expected auto: export "),
        (("--kernels", "portable"), "kernels for target ort: found portable, expected auto: "),
        (("--kernels", "fast"), "kernels: found fast, expected auto, native or portable"),
        (("--activations", "bf16"), "activations for target ort: found bf16, expected those that "),
    ],
)
def test_what_target_ort_has_not_is_refused(
    client: Client, package: Path, words: tuple[str, ...], says: str
) -> None:
    assert says in client.refused(package, "--verify", *words)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("kv_dtype",), "bfloat16", "kv_dtype: found bfloat16, expected float32 or float16\n"),
        (("cache", 0, "sink_tokens"), 1, "cache/0/sink_tokens: found 1, expected 0 to 0"),
        (("unsupported",), ["provider cpu"], "found a package for CUDA, expected one for the CPU"),
        (("unsupported",), None, "unsupported: found null, expected an array"),
        (("unsupported", 0), 7, "unsupported/0: found an integer, expected a string"),
    ],
)
def test_what_the_manifest_says_of_target_ort(
    client: Client, copy: Path, path: tuple[str | int, ...], value: Any, says: str
) -> None:
    change_manifest(copy, *path, value=value)
    assert says in client.refused(copy)


def _without_positions(model: onnx.ModelProto) -> None:
    """Make `logit_positions` a constant."""
    (value,) = (value for value in model.graph.input if value.name == "logit_positions")
    model.graph.input.remove(value)


def test_a_graph_without_logit_positions_is_refused(client: Client, copy: Path) -> None:
    change_graph(copy, _without_positions)
    assert "graph: found no 'logit_positions', expected one" in client.refused(copy)


def _another_input(model: onnx.ModelProto) -> None:
    """Give the graph an input that a caller need not know; the logits depend on it."""
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, [1]))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "spare"))
    (node,) = (node for node in graph.node if "logits" in node.output)
    node.output[list(node.output).index("logits")] = "logits.before"
    graph.node.append(helper.make_node("Add", ["logits.before", "spare"], ["logits"]))


def test_an_input_with_a_default_may_be_unknown(client: Client, copy: Path) -> None:
    change_graph(copy, _another_input)
    assert verdict_of(client, copy)["passed"] is True
