"""The pass over projections: chunks of the checkpoint's rows, cast and multiplied one by one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.exporter.ort import linear
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session

EXTERNAL = onnx.TensorProto.EXTERNAL
TOKENS = [3, 5, 2, 7, 1]


def lm_head(package: Package) -> onnx.TensorProto:
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
    return next(tensor for tensor in graph.initializer if tensor.name.startswith("lm_head"))


def scores(package: Package) -> np.ndarray:
    with Session.open(package.folder) as session:
        return np.asarray(session.score(TOKENS))


@given(rows=st.integers(1, 60000), columns=st.integers(1, 5000))
def test_chunks_are_even_and_bounded(rows: int, columns: int) -> None:
    size = linear.chunk_rows(rows, columns)
    if size is not None:
        assert rows % size == 0 and size * columns * 4 <= 16 * linear.CHUNK
        assert size == rows or size * columns * 4 >= linear.CHUNK // 8


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (4096, 2880, 256),
        (512, 2880, 256),
        (2880, 4096, 240),
        (32, 2880, 32),
        (201088, 2880, 128),
        (50257, 768, 1733),  # of GPT-2: 29 · 1733
        (32003, 4096, None),  # a prime
    ],
)
def test_chunks_of_real_shapes(rows: int, columns: int, expected: int | None) -> None:
    assert linear.chunk_rows(rows, columns) == expected


@pytest.mark.parametrize("weights", ["link", "copy"])
def test_several_chunks_change_nothing(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document())
    whole = export(
        tmp_path / "checkpoint",
        tmp_path / "whole",
        target="ort",
        weights=weights,
        dense="checkpoint",
    )
    monkeypatch.setattr(linear, "CHUNK", 1 << 11)
    small = export(
        tmp_path / "checkpoint",
        tmp_path / "small",
        target="ort",
        weights=weights,
        dense="checkpoint",
    )
    shapes = [lm_head(package).dims for package in (whole, small)]
    assert shapes[0][0] == 1 and shapes[1][0] > 1
    np.testing.assert_allclose(scores(small), scores(whole), rtol=0, atol=1e-5)


def test_rows_without_a_divisor_are_widened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", 1 << 12)  # a row has 256 bytes, lm_head 83 KiB
    make_checkpoint(tmp_path / "checkpoint", tiny_document(vocab_size=331))
    package = export(
        tmp_path / "checkpoint", tmp_path / "package", target="ort", dense="checkpoint"
    )
    assert list(load_file(package.folder / ORT_WEIGHTS)) == ["lm_head.weight_float32"]
    assert lm_head(package).data_type == onnx.TensorProto.FLOAT
    assert np.isfinite(scores(package)).all()


def test_projections_are_widened_by_default(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document())
    own = export(tmp_path / "checkpoint", tmp_path / "own", target="ort", dense="checkpoint")
    wide = export(tmp_path / "checkpoint", tmp_path / "wide", target="ort")  # the default
    assert not (own.folder / ORT_WEIGHTS).exists()
    written = load_file(wide.folder / ORT_WEIGHTS)
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert "lm_head.weight_float32" in written and not any("experts" in name for name in written)
    for name, tensor in written.items():
        assert torch.equal(tensor, stored[name.removesuffix("_float32")].float())
    assert wide.manifest.weights.bit_identical and wide.manifest.lossy == ()
    np.testing.assert_allclose(scores(wide), scores(own), rtol=0, atol=1e-5)


def test_a_tied_head_is_read_where_the_embedding_lies(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(tie_word_embeddings=True))
    package = export(
        tmp_path / "checkpoint",
        tmp_path / "package",
        target="ort",
        weights="copy",
        dense="checkpoint",
    )
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.initializer
        if "embed_tokens" in tensor.name and tensor.data_location == EXTERNAL
    ]
    assert len(places) == 2 and places[0] == places[1]
    assert np.isfinite(scores(package)).all()
