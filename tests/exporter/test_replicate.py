"""A graph of few traced layers, replicated, has the bytes of a trace of all layers."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch

from gptoss_onnx.exporter import Package, planned
from gptoss_onnx.exporter.replicate import replicate
from gptoss_onnx.exporter.shorten import Plan, plan_of, shorten
from gptoss_onnx.exporter.tidy import tidy
from gptoss_onnx.exporter.weights import Placement, attach_weights
from gptoss_onnx.reference import Checkpoint, Decoder, open_checkpoint
from gptoss_onnx.reference.layer_types import FULL, SLIDING
from gptoss_onnx.reference.synthetic import SyntheticLayout, make_checkpoint, tiny_document
from support.checkpoints import rewrite

PATTERNS = ["SSSS", "FFFF", "SSFF", "FSSS", "SFFFFFS", "S", "F", "SF", "FFSFSSF"]
LAYOUTS: tuple[SyntheticLayout, ...] = ("hf-mxfp4", "hf-bf16")  # OpenAI's has one pattern alone
QUICK = [("FFSFSSF", "hf-mxfp4", True)]
SLOW = [
    pytest.param(pattern, layout, tied, marks=pytest.mark.slow)
    for pattern in PATTERNS
    for layout in LAYOUTS
    for tied in (True, False)
    if (pattern, layout, tied) not in QUICK
]


@pytest.mark.parametrize(("pattern", "layout", "tied"), [*QUICK, *SLOW])
def test_replica_has_the_bytes_of_a_full_trace(
    tmp_path: Path, pattern: str, layout: SyntheticLayout, tied: bool
) -> None:
    _make(tmp_path / "checkpoint", pattern, layout, tied)
    with open_checkpoint(tmp_path / "checkpoint") as checkpoint:
        assert _replica(checkpoint) == _full_trace(checkpoint)


def test_a_layer_in_another_dtype_is_traced_as_it_is(tmp_path: Path) -> None:
    """Its weights are of another type in the graph, and so is what casts them."""
    odd = "model.layers.2.self_attn.q_proj.weight"
    folder = tmp_path / "checkpoint"
    _make(folder, "SSSS", "hf-mxfp4", True)
    rewrite(folder, lambda tensors: tensors.update({odd: tensors[odd].float()}))
    with open_checkpoint(folder) as checkpoint:
        replica = _replica(checkpoint)
        assert replica == _full_trace(checkpoint)
    weights = onnx.load_model_from_string(replica).graph.initializer
    wide = [
        weight.name
        for weight in weights
        if weight.name.endswith("q_proj.weight") and weight.data_type == onnx.TensorProto.FLOAT
    ]
    assert wide == [odd]


def test_batch_size_is_read_from_the_lengths(tiny_package: Package) -> None:
    """Not from a cache, which may be that of any layer."""
    graph = onnx.load(tiny_package.folder / "model.onnx", load_external_data=False).graph
    read = {node.input[0] for node in graph.node if node.op_type == "Shape"}
    assert read == {"input_ids", "logit_positions", "past_lengths"}


@pytest.mark.parametrize(
    ("kinds", "traced", "patterns"),
    [
        ("A", (0,), (0,)),
        ("AAAA", (0, 1), (0, 1, 1, 1)),
        ("ABABAB", (0, 1, 2, 3), (0, 1, 2, 3, 2, 3)),
        ("AAABAAB", (0, 1, 3, 6), (0, 1, 1, 2, 1, 1, 3)),
    ],
)
def test_the_first_two_layers_of_a_kind_are_traced(
    kinds: str, traced: tuple[int, ...], patterns: tuple[int, ...]
) -> None:
    assert Plan.of(kinds) == Plan(traced, patterns)


def _make(folder: Path, pattern: str, layout: SyntheticLayout, tied: bool) -> None:
    types = [SLIDING if letter == "S" else FULL for letter in pattern]
    sizes = {"num_hidden_layers": len(types), "layer_types": types}
    make_checkpoint(folder, tiny_document(**sizes, tie_word_embeddings=tied), layout=layout)


def _full_trace(checkpoint: Checkpoint) -> bytes:
    return _bytes(_traced(Decoder.from_checkpoint(checkpoint, device="meta")), checkpoint)


def _replica(checkpoint: Checkpoint) -> bytes:
    model = Decoder.from_checkpoint(checkpoint, device="meta")
    plan = plan_of(model)
    shorten(model, plan)
    return _bytes(replicate(_traced(model), plan), checkpoint)


def _traced(model: Decoder) -> ir.Model:
    """Return the graph of a model: the one that this test run has (made_once.py), if it has one, as
    where nothing was to be shortened.
    """
    kept = frozenset(model.state_dict()) | frozenset(model.constants)
    return tidy(planned.trace(model, torch.float32), kept)


def _bytes(graph: ir.Model, checkpoint: Checkpoint) -> bytes:
    attach_weights(graph, checkpoint, Placement("link", None, dict(checkpoint.file_names)))
    return ir.to_proto(graph).SerializeToString(deterministic=True)
