"""Stages of every architecture and of other options: the same logits as of the whole package."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session, StagedSession

# Of a checkpoint with MXFP4.
OPTIONS: list[dict[str, Any]] = [
    {"dense": "int8"},
    {"kv_dtype": "float16"},
    {"kv_dtype": "bfloat16", "weights": "reference"},
    {"target": "ort"},
    {"target": "ort", "experts": "int8"},
]
CASES = [(name, {}) for name in ARCHITECTURES] + [(next(iter(ARCHITECTURES)), o) for o in OPTIONS]


def logits(session: Session) -> NDArray[np.float32]:
    """Return what a batch is answered in several calls; its rows differ where they may."""
    ids = np.random.default_rng(0).integers(0, session.vocab, (2, 24))
    with session.new_cache(2, 60, chunk=7) as cache:
        ragged = cache.layout.ragged
        found = [session.forward(ids[:, :7], cache, [7, 4] if ragged else None)]
        if ragged:
            found.append(session.forward(ids, cache, [24, 11], [[19, 3], [5, 10]]))
            cache.load_row(1, cache.save_row(0))
        found.append(session.forward(ids[:, :1], cache))
    return np.concatenate([part.ravel() for part in found])


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "options"), CASES, ids=str)
def test_stages_compute_what_the_whole_computes(
    tmp_path: Path, model_type: str, options: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    make_checkpoint(checkpoint, tiny_document(model_type), seed=3)
    whole = export(checkpoint, tmp_path / "whole", **options)
    total = len(whole.manifest.cache)
    stages = [
        export(checkpoint, tmp_path / f"{first}", layers=(first, end), **options).folder
        for first, end in ((0, 1), (1, total))
    ]
    with (
        Session.open(whole.folder, threads=1) as one,
        StagedSession.start(stages, threads=1) as several,
    ):
        ours = logits(one)
        assert ours.any()
        np.testing.assert_array_equal(ours, logits(several))
