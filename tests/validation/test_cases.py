"""The cases fit every model: short and long ones, with windows and without, of few tokens and
many.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_config
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.sizes import BEYOND, RESERVE, STAND_IN, Sizes

windows = st.lists(st.integers(1, 300_000), max_size=4)


@given(windows, st.integers(RESERVE + 6, 200_000))
def test_no_sequence_is_longer_than_the_model_takes(windows: list[int], longest: int) -> None:
    sizes = Sizes.of(windows, longest)
    assert sizes.window >= 1
    assert sizes.length + RESERVE + 1 <= longest  # what "rewind" writes
    assert 0 < sizes.prompt < sizes.length
    assert 0 < sizes.steps < sizes.length
    assert sizes.window < sizes.length


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


@pytest.mark.parametrize("longest", [16, 64])
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_a_model_of_few_positions_and_tokens_passes(
    tmp_path: Path, target: str, longest: int
) -> None:
    """As models with learned positions are; the golden vectors are shorter too."""
    make_checkpoint(tmp_path / "checkpoint", _plain(vocab_size=33, longest=longest), seed=3)
    package = export(tmp_path / "checkpoint", tmp_path / "package", target=target)
    report = validate(package.folder, tmp_path / "checkpoint", suite="full")
    assert report.passed, report.table()
    # nothing is scaled, so that there is no context beyond the original one
    assert "long context" not in {case.name for case in report.cases}


def _plain(vocab_size: int, longest: int):
    """A small model without windows, and without scaled positions."""
    config = tiny_config(num_layers=2, vocab_size=vocab_size, max_position_embeddings=longest)
    rope = replace(
        config.rope, kind="default", factor=1.0, original_max_position_embeddings=longest
    )
    layers = ("full_attention",) * config.num_layers
    return replace(config, window=0, layer_types=layers, rope=rope)
