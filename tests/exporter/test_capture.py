"""What is captured gives the graph that torch's own exporter makes of the model, byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch

from gptoss_onnx.exporter import planned
from gptoss_onnx.exporter.shorten import plan_of, shorten
from gptoss_onnx.exporter.tidy import tidy
from gptoss_onnx.exporter.trace import trace
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

LAB: dict[str, dict[str, Any]] = {
    "sinusoidal": {"positions": "sinusoidal"},
    "kept first tokens": {"sliding_window": 9, "sink_tokens": 3, "sink_bias": 0.7},
    "layer norm, GELU": {"use_rms_norm": False, "use_swiglu": False, "bias": True, "tied": False},
}
QUICK = "bloom"  # the one with most to rewrite
CASES = {name: tiny_document(name) for name in ARCHITECTURES} | {
    f"gpt_oss_lab, {name}": tiny_document("gpt_oss_lab", **changes) for name, changes in LAB.items()
}


@pytest.mark.parametrize(
    "name",
    [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != QUICK)],
)
def test_the_graph_is_that_of_torchs_exporter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "checkpoint", CASES[name])
    # The graph that exports of this test run get: made once (made_once.py), for other tests too.
    ours = _traced(tmp_path / "checkpoint", planned.trace)
    # a model in the place of a program: torch captures and decomposes it
    monkeypatch.setattr("gptoss_onnx.exporter.trace.capture", lambda model, *_: model)
    assert _traced(tmp_path / "checkpoint", trace) == ours


def _traced(folder: Path, trace: Callable[[Decoder, torch.dtype], ir.Model]) -> bytes:
    with open_checkpoint(folder) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint, device="meta")
        shorten(model, plan_of(model))
        kept = frozenset(model.state_dict()) | frozenset(model.constants)
        graph = tidy(trace(model, torch.float32), kept)
    return ir.to_proto(graph).SerializeToString(deterministic=True)
