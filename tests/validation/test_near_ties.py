"""A router that chooses by a hair decides no verdict; one that chooses clearly does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.experts_int4 import int4_names, use_experts_int4
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.judging.expected import Expected, Scored
from gptoss_onnx.validation.judging.limits import EXACT
from gptoss_onnx.validation.judging.near_ties import NEAR
from gptoss_onnx.validation.judging.outcome import judge

POSITIONS, VOCABULARY = 20, 50
TOP_K = 2


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(POSITIONS, VOCABULARY)).astype(np.float32)


def scored(first_tie: int) -> Scored:
    return Scored(logits(), np.arange(POSITIONS) < first_tie)


@pytest.mark.parametrize(("place", "first_tie", "passed"), [(12, 12, True), (11, 12, False)])
def test_only_undecided_positions_may_be_off(place: int, first_tie: int, passed: bool) -> None:
    found = logits()
    found[place, 7] += 10 * EXACT.max_abs
    outcome = judge(found, scored(first_tie), EXACT)
    assert outcome.passed is passed
    assert outcome.difference.max_abs > EXACT.max_abs  # told in any case
    assert "8 of 20 positions come after a router that chose by less" in outcome.note


@pytest.mark.parametrize("first_tie", [0, 12])
@pytest.mark.parametrize("value", [np.nan, 30.0])
def test_undecided_positions_have_limits_too(first_tie: int, value: float) -> None:
    found = logits()
    found[12:, 7] = value
    assert judge(found, scored(first_tie), EXACT).passed is False


def test_what_holds_needs_no_excuse() -> None:
    outcome = judge(logits(), scored(3), EXACT)
    assert (outcome.passed, outcome.note) == (True, "")


def test_tokens_are_drawn_again_from_the_first_near_tie_on(tiny_checkpoint: Path) -> None:
    with open_checkpoint(tiny_checkpoint) as checkpoint:
        expected = Expected(Decoder.from_checkpoint(checkpoint), seed=1, near=0.03)
        assert not expected.score(expected.draw(POSITIONS)).decided.all()
        assert expected.score(expected.tokens(POSITIONS)).decided.all()


def test_rounded_experts_have_routers_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with open_checkpoint(tiny_checkpoint) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint)
    stored = {}
    for name, blocks in model.state_dict().items():
        if name.endswith("_blocks"):
            codes, scales = int4_names(name.removesuffix("_blocks"))
            stored[codes] = blocks.flatten(2).contiguous()
            stored[scales] = torch.ones(blocks.shape[:3])
    save_file(stored, tmp_path / "int4.safetensors")
    expected = Expected(use_experts_int4(model, tmp_path / "int4.safetensors"), seed=1, near=np.inf)
    assert not expected.score([1, 2, 3]).decided.any()


def router_checkpoint(folder: Path, gap: float) -> Path:
    """Write a checkpoint whose first router prefers one expert to another by `gap`, whatever the
    token; with a gap below 0, the other. Which of them matters a little.
    """
    document = tiny_document(num_experts_per_tok=TOP_K)
    make_checkpoint(folder, document, layout="hf-bf16", dtype="F32", seed=5)
    path = folder / "model.safetensors"
    mlp = "model.layers.0.mlp"
    tensors = load_file(path)
    tensors[f"{mlp}.router.weight"] *= 0
    tensors[f"{mlp}.experts.down_proj"] *= 0.01
    tensors[f"{mlp}.experts.down_proj_bias"] *= 0.01
    bias = -torch.arange(float(document["num_local_experts"]))
    bias[TOP_K] = bias[TOP_K - 1] - gap
    save_file({**tensors, f"{mlp}.router.bias": bias}, path)
    return folder


@pytest.mark.parametrize(("gap", "passed"), [(NEAR / 4, True), (4 * NEAR, False)])
def test_a_package_that_chooses_the_other_expert(tmp_path: Path, gap: float, passed: bool) -> None:
    """As another order of the same sums may: the difference is large, and no error."""
    reference = router_checkpoint(tmp_path / "checkpoint", gap)
    package = export(router_checkpoint(tmp_path / "other", -gap), tmp_path / "package")
    report = validate(package.folder, reference)
    prefill = report.cell("prefill")
    assert prefill.difference.max_abs > EXACT.max_abs
    assert (prefill.state == "passed") is passed, report.table()
    assert report.passed is passed, report.table()
    assert ("chose by less than" in report.table()) is passed
