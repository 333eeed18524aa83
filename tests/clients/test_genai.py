"""Packages of target ort in onnxruntime-genai 0.18: they load as they are, and say what we say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.genai_client import CLIENTS, marks, python

UNSAID = 311  # a token that the tiny models with seed 3 never say

pytestmark = marks


def greedy(package: Package, arithmetic: str) -> dict[str, list[int]]:
    """Return 64 tokens after each golden prompt: with `default` nothing is set, `exact` has the
    session option that 8-bit experts need.
    """
    script = CLIENTS / "genai_greedy.py"
    found: dict[str, list[int]] = json.loads(python(script, package.folder, arithmetic))
    return found


def golden(package: Package) -> dict[str, list[int]]:
    document = json.loads((package.folder / "golden" / "golden.json").read_text())
    return {case["name"]: case["greedy"] for case in document["cases"]}


def test_the_versions_are_those_that_are_promised() -> None:
    asked = (
        "import onnxruntime as ort, onnxruntime_genai as og; print(og.__version__, ort.__version__)"
    )
    genai, onnxruntime = python("-c", asked).split()
    assert genai.startswith("0.18.")
    assert onnxruntime.startswith("1.32.")


def test_default_settings_give_our_greedy_tokens(ort_package: Package) -> None:
    """MXFP4 as it lies in the checkpoint: no overlay, no option, 64 of 64 on every prompt."""
    expected = golden(ort_package)
    assert {len(tokens) for tokens in expected.values()} == {64}
    assert greedy(ort_package, "default") == expected


@pytest.mark.parametrize(
    "model_type", [model_type for model_type in ARCHITECTURES if model_type != "gpt_oss"]
)
def test_greedy_tokens_of_every_architecture_are_ours(model_type: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    make_checkpoint(checkpoint, tiny_document(model_type), seed=3)
    # Where nothing ends a text, onnxruntime-genai takes token 0 for it.
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": UNSAID}))
    package = export(checkpoint, tmp_path / "package", target="ort")
    expected = golden(package)
    assert all(UNSAID not in tokens and len(tokens) == 64 for tokens in expected.values())
    assert greedy(package, "default") == expected


def test_int8_experts_need_the_option_for_exact_arithmetic(ort_int8_package: Package) -> None:
    assert greedy(ort_int8_package, "exact") == golden(ort_int8_package)


def test_int4_experts_load_and_say_what_they_should(demo_checkpoint: Path, tmp_path: Path) -> None:
    package = export(demo_checkpoint, tmp_path / "package", target="ort", experts="int4")
    assert greedy(package, "exact") == golden(package)


def test_default_arithmetic_of_int8_experts_is_reported(
    ort_int8_package: Package, record_property: Callable[[str, object], None]
) -> None:
    """Unless told otherwise, QMoE multiplies activations of 8 bits: it must run to the end;
    agreement is only recorded.
    """
    found, expected = greedy(ort_int8_package, "default"), golden(ort_int8_package)
    for name, tokens in expected.items():
        assert len(found[name]) == len(tokens)
        same = [ours == theirs for ours, theirs in zip(found[name], tokens, strict=True)]
        equal = same.index(False) if False in same else len(same)
        record_property(name, equal)
        print(f"{name}: {equal} of {len(tokens)} tokens equal before the first difference")
