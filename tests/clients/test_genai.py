"""A package of target ort in onnxruntime-genai 0.18: it loads, and with exact arithmetic says what
we say.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

UNSAID = 311  # a token that the tiny models with seed 3 never say
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "clients" / "genai" / "bin" / "python"
GREEDY = Path(__file__).with_name("genai_greedy.py")

pytestmark = [
    pytest.mark.genai,
    pytest.mark.clients,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no build/clients/genai: run tests/clients/genai_venv.sh"
    ),
]


def run(*arguments: str) -> str:
    done = subprocess.run([PYTHON, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def greedy(package: Package, arithmetic: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = json.loads(run(str(GREEDY), str(package.folder), arithmetic))
    return found


def golden(package: Package) -> dict[str, list[int]]:
    document = json.loads((package.folder / "golden" / "golden.json").read_text())
    return {case["name"]: case["greedy"] for case in document["cases"]}


def test_the_version_is_the_one_that_is_promised() -> None:
    assert run("-c", "import onnxruntime_genai as og; print(og.__version__)").startswith("0.18.")


def test_greedy_tokens_are_ours_with_exact_arithmetic(ort_package: Package) -> None:
    expected = golden(ort_package)
    assert {len(tokens) for tokens in expected.values()} == {64}
    assert greedy(ort_package, "exact") == expected


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
    assert greedy(package, "exact") == expected


def test_int4_experts_load_and_say_what_they_should(demo_checkpoint: Path, tmp_path: Path) -> None:
    package = export(demo_checkpoint, tmp_path / "package", target="ort", experts="int4")
    assert greedy(package, "exact") == golden(package)


def test_default_arithmetic_is_reported(
    ort_package: Package, record_property: Callable[[str, object], None]
) -> None:
    """QMoE multiplies int8 activations unless told otherwise: it must run to the end; agreement is
    only recorded.
    """
    found, expected = greedy(ort_package, "default"), golden(ort_package)
    for name, tokens in expected.items():
        assert len(found[name]) == len(tokens)
        same = [ours == theirs for ours, theirs in zip(found[name], tokens, strict=True)]
        equal = same.index(False) if False in same else len(same)
        record_property(name, equal)
        print(f"{name}: {equal} of {len(tokens)} tokens equal before the first difference")
