"""`validate --runtime onnx.reference|openvino|genai`: other runtimes, each in a process of its own;
what each test of theirs needs beyond this environment is a program that stands in.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import open_package
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.columns import runtimes, served
from gptoss_onnx.validation.columns.graph_copy import in_standard_words, with_weights
from gptoss_onnx.validation.columns.runtimes import CASES
from support.stand_ins import program
from support.tolerances import PACKAGE_LOGITS

REFERENCE = "onnx.reference"


def judge(package: Package, checkpoint: Path, runtime: str, command: str = "") -> Report:
    clients = {runtime: command} if command else {}
    return validate(package.folder, checkpoint, runtimes=[runtime], clients=clients)  # type: ignore[list-item]  # by name


def test_onnx_reference_runs_the_bodies(tiny_package: Package, tiny_checkpoint: Path) -> None:
    report = judge(tiny_package, tiny_checkpoint, REFERENCE)
    assert report.passed, report.table()
    assert {row.name for row in report.rows} == {"load", *CASES}
    column = report.columns[0]
    assert column.options == f"--runtime {REFERENCE}"
    assert column.runs == f"portable bodies in onnx.reference {onnx.__version__} on cpu (as is)"


def test_a_linear_without_bias_runs_there_too(tmp_path: Path) -> None:
    """Its function has one more input than such a node would have: exports leave none out."""
    make_checkpoint(tmp_path / "checkpoint", tiny_document("qwen3_moe"), seed=5)
    package = export(tmp_path / "checkpoint", tmp_path / "package")
    report = judge(package, tmp_path / "checkpoint", REFERENCE)
    assert report.passed, report.table()


def test_a_changed_body_fails(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package")
    model = onnx.load(package.graph, load_external_data=False)
    (gemm,) = (
        node
        for function in model.functions
        if function.name == "Linear"
        for node in function.node
        if node.op_type == "Gemm"
    )
    gemm.attribute.append(onnx.helper.make_attribute("alpha", 1.25))
    onnx.save(model, package.graph)
    report = judge(package, tiny_checkpoint, REFERENCE)
    assert report.exit_code == 1
    assert set(report.failed()) == set(CASES)


def test_large_and_other_packages_are_not_available(
    tiny_package: Package,
    tiny_checkpoint: Path,
    ort_package: Package,
    demo_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = replace(runtimes.GRAPH_RUNTIMES[REFERENCE], most=1000)
    monkeypatch.setitem(runtimes.GRAPH_RUNTIMES, REFERENCE, small)
    report = judge(tiny_package, tiny_checkpoint, REFERENCE)
    assert (report.exit_code, report.cells) == (2, ())
    assert "onnx.reference is given 0.0 GB at most" in report.table()
    report = judge(ort_package, demo_checkpoint, REFERENCE)
    assert "the graph of target ort has operators of ONNX Runtime's own" in report.table()
    report = judge(tiny_package, tiny_checkpoint, "genai")
    assert "the package has no genai_config.json: export it with --target ort" in report.table()


def test_when_its_time_is_up_the_rest_is_not_available(
    tiny_package: Package, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(runtimes.GRAPH_RUNTIMES[REFERENCE], seconds=0.0)
    monkeypatch.setitem(runtimes.GRAPH_RUNTIMES, REFERENCE, short)
    report = judge(tiny_package, tiny_checkpoint, REFERENCE)
    states = {cell.case: cell.state for cell in report.cells}
    assert states == {"load": "passed", **dict.fromkeys(CASES, "not available")}


@pytest.mark.parametrize("runtime", ["openvino", "genai"])
def test_what_is_not_installed_is_a_missing_column(
    tiny_package: Package,
    tiny_checkpoint: Path,
    ort_package: Package,
    demo_checkpoint: Path,
    runtime: str,
) -> None:
    pair = {"openvino": (tiny_package, tiny_checkpoint), "genai": (ort_package, demo_checkpoint)}
    report = judge(*pair[runtime], runtime)
    assert report.exit_code == 2
    assert "is not installed in this Python" in report.table()
    assert f"--client {runtime}=PYTHON" in report.table()


FAULTS = {
    "import os; os.kill(os.getpid(), 11)": "its process ended (signal SIGSEGV)",
    "print('hello, this is no message')": "it printed more than",
    "import sys; sys.stdout.buffer.write((3).to_bytes(8, 'little') + b'abc')": "holds no arrays",
    "import time; time.sleep(600)": "no answer after 2 s",
    "print(end=chr(127) * 8 + 'x')": "printed more than 1073741824 bytes",
}


@pytest.mark.parametrize(("code", "said"), FAULTS.items(), ids=FAULTS.values())
@pytest.mark.parametrize("runtime", [REFERENCE, "genai"])
def test_a_process_that_fails_is_a_refused_cell(
    tiny_package: Package,
    tiny_checkpoint: Path,
    ort_package: Package,
    demo_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    code: str,
    said: str,
) -> None:
    monkeypatch.setattr(served, "OPENING", 2.0 if "sleep" in code else 60.0)
    pair = {REFERENCE: (tiny_package, tiny_checkpoint), "genai": (ort_package, demo_checkpoint)}
    report = judge(*pair[runtime], runtime, program(tmp_path, code))
    (cell,) = report.cells
    assert (cell.case, cell.state, report.exit_code) == ("load", "refused", 1)
    assert said in cell.note


def test_a_crash_between_two_calls_refuses_the_cases(
    tiny_package: Package, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """It opens the graph, and dies of the first request."""
    code = (
        "import io, os, sys, numpy as np\n"
        "packed = io.BytesIO(); np.savez(packed, version='1')\n"
        "length = len(packed.getvalue()).to_bytes(8, 'little')\n"
        "sys.stdout.buffer.write(length + packed.getvalue())\n"
        "sys.stdout.flush(); sys.stdin.buffer.read(8); os.kill(os.getpid(), 6)\n"
    )
    report = judge(tiny_package, tiny_checkpoint, REFERENCE, program(tmp_path, code))
    states = {cell.case: cell.state for cell in report.cells}
    assert states == {"load": "passed", **dict.fromkeys(CASES, "refused")}
    assert "its process ended (signal SIGABRT)" in report.table()


# The copy of the graph


def test_the_copy_in_standard_words_computes_the_same(tiny_package: Package) -> None:
    package = open_package(tiny_package.folder)
    model = with_weights(package, 10_000_000)
    plain = in_standard_words(with_weights(package, 10_000_000))
    assert not plain.functions
    assert "TensorScatter" not in {node.op_type for node in plain.graph.node}
    feeds = {
        "input_ids": np.array([[5, 6, 7], [8, 9, 0]], np.int64),
        "past_lengths": np.array([9, 2], np.int64),
        "new_lengths": np.array([3, 2], np.int64),
        "logit_positions": np.array([[0, 2], [0, 1]], np.int64),
    }
    generator = np.random.default_rng(3)
    for layer in package.manifest.cache:
        for name in (layer.past_key, layer.past_value):
            shape = (2, layer.kv_heads, 11 if layer.window else 40, layer.head_dim)
            feeds[name] = generator.standard_normal(shape).astype(np.float32)
    ours, theirs = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, feeds)
        for each in (model, plain)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, one, atol=PACKAGE_LOGITS, rtol=0)


def test_weights_are_read_from_the_packages_own_files_alone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", weights="copy")
    with pytest.raises(RuntimeUnavailable, match=r"this column takes 0\.0 GB at most"):
        with_weights(package, 1000)
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    model = onnx.load(package.graph, load_external_data=False)
    entry = next(
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    )
    entry.value = "../secret"
    onnx.save(model, package.graph)
    with pytest.raises(
        PackageError, match=r"lies in '\.\./secret', which is none of the manifest's"
    ):
        with_weights(package, 10_000_000)
