"""The pass over projections: chunks of the checkpoint's rows, cast and multiplied one by one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.exporter.ort import linear
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session

EXTERNAL = onnx.TensorProto.EXTERNAL
TOKENS = [3, 5, 2, 7, 1]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """48 rows of the tiny model's hidden width, 64: no row count of it is a multiple."""
    monkeypatch.setattr(linear, "CHUNK", 48 * 64 * 4)


def scores(package: Package) -> np.ndarray:
    with Session.open(package.folder) as session:
        return np.asarray(session.score(TOKENS))


@given(rows=st.integers(1, 5000), columns=st.integers(1, 5000))
def test_chunks_fit_and_most_are_even(rows: int, columns: int) -> None:
    size = linear.chunk_rows(rows, columns)
    assert 1 <= size <= rows
    assert size <= 16 or size * columns * 4 <= linear.CHUNK


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [(4096, 2880, 256), (512, 2880, 256), (2880, 4096, 240), (32, 2880, 32), (201088, 2880, 352)],
)
def test_chunks_of_gpt_oss_20b(rows: int, columns: int, expected: int) -> None:
    assert linear.chunk_rows(rows, columns) == expected


@pytest.mark.parametrize("weights", ["link", "copy"])
@pytest.mark.usefixtures("small_chunks")
def test_uneven_chunks_change_nothing(tmp_path: Path, weights: str) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(vocab_size=331))
    small = export(tmp_path / "checkpoint", tmp_path / "small", target="ort", weights=weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "CHUNK", 1 << 22)
        whole = export(tmp_path / "checkpoint", tmp_path / "whole", target="ort", weights=weights)
    counts = []
    for package in (small, whole):
        graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
        counts.append(sum(tensor.name.startswith("lm_head") for tensor in graph.initializer))
    assert counts == [2, 1]
    np.testing.assert_allclose(scores(small), scores(whole), rtol=0, atol=1e-5)


def test_a_tied_head_is_read_where_the_embedding_lies(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(tie_word_embeddings=True))
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort", weights="copy")
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.initializer
        if "embed_tokens" in tensor.name and tensor.data_location == EXTERNAL
    ]
    assert len(places) == 2 and places[0] == places[1]
    assert np.isfinite(scores(package)).all()
