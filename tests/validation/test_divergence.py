"""The first layer and op that depart, of packages of the demo checkpoint with one thing broken in
each.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation.divergence import (
    RecordedSession,
    find,
    first_divergence,
    layer_errors,
)
from gptoss_onnx.validation.divergence.bounds import point_bound
from gptoss_onnx.validation.divergence.points import Point
from gptoss_onnx.validation.report.document import Divergence
from support.broken_package import attribute, body, constant, fill_weight, reads
from support.stranger_graph import Edit, change_graph

WINDOW = 32  # of the demo checkpoint
LENGTH = 2 * WINDOW + 11  # wraps its rings
Drive = Callable[[RecordedSession, list[int]], None]
FILE = "model.safetensors"


@pytest.fixture(scope="module")
def model(demo_checkpoint: Path) -> Iterator[Decoder]:
    with open_checkpoint(demo_checkpoint) as checkpoint:
        yield Decoder.from_checkpoint(checkpoint)


def prefill(session: RecordedSession, tokens: list[int]) -> None:
    session.score(tokens)


def chunks(session: RecordedSession, tokens: list[int]) -> None:
    session.score(tokens, chunk=7)


def rows_and_rewinding(session: RecordedSession, tokens: list[int]) -> None:
    """Two rows beyond the window in short calls, taken back, and gone on with in two caches."""
    held = LENGTH - 8
    with session.new_cache(2, LENGTH, reserve=4, chunk=16) as cache:
        session.forward([tokens[:held], tokens[1 : held + 1]], cache, [held, 3])
        session.forward([[1], [2]], cache)
        cache.rewind([held, 3])
        twin = cache.fork()
        session.forward([tokens[40:43]] * 2, cache, [3, 0])
        session.forward([tokens[40:43]] * 2, twin, [2, 3])
        twin.close()


def look(
    package: Path, kernels: str, model: Decoder, drive: Drive = prefill
) -> tuple[Divergence | None, tuple[float, ...]]:
    """Return what is found for a drive, and the errors of the layers."""
    tokens = np.random.default_rng(5).integers(0, model.config.vocab_size, LENGTH).tolist()
    with RecordedSession.open(package, kernels) as session:
        drive(session, tokens)
        errors = layer_errors(session, model, session.recording)
        assert [error.layer for error in errors] == list(range(model.config.num_layers))
        found = first_divergence(session, model, session.recording)
    return found, tuple(error.relative / error.allowed for error in errors)


def of_layer(layer: int, name: str) -> str:
    return f"model.layers.{layer}.{name}"


OUTPUT, NORM = "self_attn.o_proj", "post_attention_layernorm"
MOE, ATTENTION = of_layer(2, "mlp.MoEDispatchMXFP4"), of_layer(2, "self_attn.SinkAttention")
# what is broken, the layer and the op that are to be named, whether the bodies alone show it
PORTABLE: dict[str, tuple[Edit, int | None, str, bool]] = {
    "alpha": (attribute(MOE, alpha=1.703125), 2, "MoEDispatchMXFP4", False),
    "top_k": (attribute(MOE, top_k=3), 2, "MoEDispatchMXFP4", False),
    "scale": (attribute(ATTENTION, scale=0.17), 2, "SinkAttention", False),
    "window": (attribute(ATTENTION, window=WINDOW + 1), 2, "SinkAttention", False),
    "epsilon": (
        attribute(of_layer(1, "input_layernorm.RMSNormalization"), epsilon=1e-3),
        1,
        "input_layernorm.RMSNormalization",
        False,
    ),
    "rotation": (constant("inv_freq", 1.01), None, "Cos", False),
    "residual": (
        reads(of_layer(4, "Add_2"), 0, of_layer(3, "Add_2.output")),
        4,
        "Add_2",
        False,
    ),
    "wiring": (
        reads(of_layer(3, "self_attn.k_proj.Linear"), 0, of_layer(2, "Add_2.output")),
        3,
        "k_proj.Linear",
        False,
    ),
    "another's bias": (
        reads(
            of_layer(3, "self_attn.o_proj.Linear"), 2, of_layer(2, "self_attn.o_proj.Cast.output")
        ),
        3,
        "o_proj.Linear",
        False,
    ),
    "attention's body": (body("SinkAttention", "Less", "LessOrEqual"), 0, "SinkAttention", True),
    "experts' body": (body("ClampedSwiGLU", "Sigmoid", "Tanh"), 0, "MoEDispatchMXFP4", True),
}
# each with one of both, the bodies with both
EDITS = [
    *((name, ("portable", "native")[index % 2]) for index, name in enumerate(PORTABLE)),
    ("attention's body", "portable"),
    ("attention's body", "native"),
    ("experts' body", "portable"),
]
EDITS = sorted(set(EDITS))
ORT: dict[str, tuple[Edit, int | None, str]] = {
    "alpha": (attribute(of_layer(2, "mlp.QMoE"), activation_alpha=1.703125), 2, "QMoE"),
    "beta": (attribute(of_layer(5, "mlp.QMoE"), activation_beta=0.9), 5, "QMoE"),
    "scale": (
        attribute(of_layer(1, "self_attn.GroupQueryAttention"), scale=0.17),
        1,
        "GroupQueryAttention",
    ),
    "rotation": (
        attribute(of_layer(3, "self_attn.RotaryEmbedding_key"), interleaved=1),
        3,
        "RotaryEmbedding_key",
    ),
    "count": (reads(of_layer(2, "mlp.TopK"), 1, "lengths.one"), 2, "TopK"),
    "experts": (constant("experts.not_chosen", -1.0), 0, "TopK"),
    "gather": (reads("Gather", 0, of_layer(4, "Add_2.output")), None, "Gather"),
}
# tensor of the checkpoint, the layer and the op
WEIGHTS = {
    of_layer(1, "post_attention_layernorm.weight"): (
        1,
        "post_attention_layernorm.RMSNormalization",
    ),
    of_layer(2, "self_attn.sinks"): (2, "SinkAttention"),
    of_layer(4, "mlp.router.bias"): (4, "router.Linear"),
    of_layer(5, "mlp.experts.down_proj_scales"): (5, "MoEDispatchMXFP4"),
    "model.norm.weight": (None, "norm.RMSNormalization"),
    "lm_head.weight": (None, "lm_head.Linear"),
    "model.embed_tokens.weight": (None, "embed_tokens.Gather"),
}


@pytest.mark.parametrize("drive", [prefill, rows_and_rewinding])
@pytest.mark.parametrize("kernels", ["portable", "native", "ort"])
def test_a_healthy_package_does_not_depart(
    kernels: str, drive: Drive, demo_package: Package, ort_package: Package, model: Decoder
) -> None:
    package = ort_package if kernels == "ort" else demo_package
    found, errors = look(package.folder, "auto" if kernels == "ort" else kernels, model, drive)
    assert found is None
    assert max(errors) < 1


@pytest.mark.parametrize(("broken", "kernels"), EDITS)
def test_an_edit_is_named(
    broken: str, kernels: str, demo_package: Package, model: Decoder, tmp_path: Path
) -> None:
    edit, layer, op, bodies_alone = PORTABLE[broken]
    package = shutil.copytree(demo_package.folder, tmp_path / "package")
    change_graph(package, edit)
    found, errors = look(package, kernels, model)
    if bodies_alone and kernels == "native":
        assert found is None
        return
    assert found is not None
    assert (found.layer, found.op) == (layer, op)
    where = op if layer is None else f"layers.{layer} {op}"
    assert found.text.startswith(f"{where} (relative error ")
    assert found.text.endswith("), call 1 of 1")
    assert found.inputs_max > found.inputs_rms > 0
    if layer is not None:  # the layers before are as they were
        assert max(errors[:layer], default=0) < 1


@pytest.mark.parametrize("broken", ORT)
def test_an_edit_of_target_ort_is_named(
    broken: str, ort_package: Package, model: Decoder, tmp_path: Path
) -> None:
    edit, layer, op = ORT[broken]
    package = shutil.copytree(ort_package.folder, tmp_path / "package")
    change_graph(package, edit)
    found, _ = look(package, "auto", model)
    assert found is not None
    assert (found.layer, found.op) == (layer, op)


@pytest.mark.parametrize("tensor", WEIGHTS)
def test_a_weight_names_the_op_that_reads_it(
    tensor: str, demo_package: Package, model: Decoder, tmp_path: Path
) -> None:
    package = shutil.copytree(demo_package.folder, tmp_path / "package")
    fill_weight(package / FILE, tensor, 0x40)
    found, _ = look(package, "native", model)
    assert found is not None
    assert (found.layer, found.op) == WEIGHTS[tensor]


def test_the_call_is_named_in_which_a_window_shows(
    demo_package: Package, model: Decoder, tmp_path: Path
) -> None:
    package = shutil.copytree(demo_package.folder, tmp_path / "package")
    change_graph(package, attribute(of_layer(4, "self_attn.SinkAttention"), window=WINDOW - 2))
    found, _ = look(package, "native", model, chunks)
    assert found is not None
    assert (found.layer, found.op) == (4, "SinkAttention")
    # the first query that sees two tokens less is at position 30, of the fifth call
    assert found.text.endswith("call 5 of 11")


def test_a_recording_says_when_it_is_not_whole(
    demo_package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_onnx.validation.divergence.recording.MOST_TOKENS", 5)
    with RecordedSession.open(demo_package.folder) as session:
        session.score([1, 2, 3])
        assert session.recording.complete
        session.score([1, 2, 3])
        assert not session.recording.complete
        assert session.recording.graph_calls == 1
        session.forget()
        assert session.recording.calls == []


@pytest.mark.parametrize("model_type", ["gpt2", "openai-gpt"])
def test_no_part_of_a_healthy_layer_departs(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer's result is refused whatever it is, so that all parts of it are looked at: fused
    projections, which the graph splits, and norms behind the residual sums.
    """
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type), seed=3)
    package = export(tmp_path / "checkpoint", tmp_path / "package")

    def refusing(*args: Any) -> Callable[[Point], float]:
        bound = point_bound(*args)
        refused = of_layer(1, "").rstrip(".")
        return lambda point: (
            -1.0 if (point.module, point.side) == (refused, "out") else bound(point)
        )

    monkeypatch.setattr(find, "point_bound", refusing)
    with open_checkpoint(tmp_path / "checkpoint") as checkpoint:
        found, _ = look(package.folder, "native", Decoder.from_checkpoint(checkpoint))
    assert found is not None
    last = {"gpt2": "Add_2", "openai-gpt": f"{NORM}.LayerNormalization"}
    assert (found.layer, found.op) == (1, last[model_type])
