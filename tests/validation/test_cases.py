"""The cases fit every model: short and long ones, with windows and without, of few tokens and
many.
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.cases.sizes import BEYOND, RESERVE, STAND_IN, Sizes

windows = st.lists(st.integers(1, 300_000), max_size=4)


@given(windows, st.integers(1, 200_000))
def test_no_sequence_is_longer_than_the_model_takes(windows: list[int], longest: int) -> None:
    sizes = Sizes.of(windows, longest)
    assert 1 <= sizes.length <= longest
    assert sizes.window >= 1
    if longest >= 4:  # fewer tokens leave no room for a sequence
        assert 0 < sizes.prompt < sizes.length
        assert 0 < sizes.steps < sizes.length
        assert sizes.window < sizes.length
    if longest >= 2 * (RESERVE + 1):
        assert sizes.length + RESERVE + 1 <= longest  # what "rewind" writes


@given(windows)
def test_the_widest_window_is_passed_where_the_model_takes_as_many(windows: list[int]) -> None:
    sizes = Sizes.of(windows, 1_000_000)
    assert sizes.window == max(windows, default=STAND_IN)
    # rows that are decoded together begin beyond the window and go on by its width
    assert sizes.length - sizes.steps > sizes.window
    assert sizes.length - sizes.window > 2 * min(sizes.window, BEYOND)
    assert sizes.prompt <= max(sizes.window, 1)


def test_a_window_that_no_sequence_passes_has_a_stand_in() -> None:
    assert Sizes.of([4096], 4096) == Sizes.of([], 4096)
    assert Sizes.of([8, 4096], 4096) == Sizes.of([8], 4096)


MODELS = {
    "gpt-oss of 8 positions": {"max_position_embeddings": 8},
    "gpt-oss of 64 positions": {"max_position_embeddings": 64},
    "gpt2 of 64 learned positions": {"model_type": "gpt2", "n_positions": 64},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_model_of_few_positions_and_tokens_passes(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Without windows and without scaled positions; the golden vectors are shorter too."""
    if "model_type" not in changes:
        changes = changes | {
            "rope_scaling": {"rope_type": "default"},
            "layer_types": ["full_attention"] * 4,
        }
    make_checkpoint(tmp_path / "checkpoint", tiny_document(vocab_size=33, **changes), seed=3)
    package = export(tmp_path / "checkpoint", tmp_path / "package", weights="copy")
    report = validate(package.folder, tmp_path / "checkpoint", suite="full", kernels="native")
    assert report.passed, report.table()
    # nothing is scaled, so that there is no context beyond the original one
    assert "long context" not in {row.name for row in report.rows}
