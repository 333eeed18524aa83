"""Which positions of a sequence are compared where the vocabulary is large, and that the reference
computes logits there alone.
"""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.validation.cases.driving import MOST_LOGITS, Drive
from gptoss_onnx.validation.judging.logits_as_asked import LogitsAsAsked

SIZES = st.integers(1, 3000)


def drive(vocab: int) -> Drive:
    """Return a drive that knows the size of the vocabulary alone."""
    unused: Any = None
    return Drive(cast(Any, SimpleNamespace(vocab=vocab)), unused, unused, [])


@given(length=SIZES, vocab=st.sampled_from([32, 2048, 50_257, 201_088, 2**25]))
def test_positions_ascend_to_the_last_one_and_are_as_many_as_is_allowed(
    length: int, vocab: int
) -> None:
    places = drive(vocab).compared(length)
    assert places[-1] == length - 1
    assert places[0] >= 0
    steps = np.diff(places)
    assert (steps > 0).all()
    assert len(places) == min(length, max(1, MOST_LOGITS // vocab))
    if len(steps):
        assert steps.max() - steps.min() <= 1, "at equal distances"


@given(length=SIZES, cuts=st.lists(SIZES, max_size=5))
def test_calls_share_the_positions_of_their_sequence(length: int, cuts: list[int]) -> None:
    one = drive(201_088)
    ends = sorted({*(cut for cut in cuts if cut < length), length})
    found = [
        begin + one.compared_in(length, begin, end)
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    np.testing.assert_array_equal(np.concatenate(found), one.compared(length))


def test_a_large_model_computes_the_rows_that_are_asked_for_once() -> None:
    hidden = torch.arange(20.0).reshape(10, 2)
    asked: list[int] = []

    def unembed(rows: torch.Tensor) -> Any:
        asked.extend((rows[:, 0] / 2).int().tolist())
        return rows.float().numpy()

    logits = LogitsAsAsked(hidden, unembed)
    np.testing.assert_array_equal(logits[[4, 2, 4]], hidden[[4, 2, 4]])
    np.testing.assert_array_equal(logits[np.array([2, 9])], hidden[[2, 9]])
    np.testing.assert_array_equal(logits[-2:], hidden[8:])
    assert sorted(asked) == [2, 4, 8, 9]
    assert logits.nbytes == hidden.nbytes + 4 * 2 * 4
