"""KVCache: sizes, rewinds and uses that are refused, each named."""

from collections.abc import Iterator
from typing import Any

import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Session
from support.fake_package import write_fake_package


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(write_fake_package(tmp_path_factory.mktemp("package")), threads=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "cache batch: found 0"),
        ((1, 0), "cache capacity: found 0"),
        ((1, 8, -1), "cache reserve: found -1"),
        ((1, 2.5), "cache capacity: found 2.5"),
    ],
)
def test_impossible_sizes_are_refused(
    session: Session, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        session.new_cache(*arguments)


def test_wrong_rewinds_are_refused(session: Session) -> None:
    cache = session.new_cache(2, 8)
    session.forward([[1, 2], [3, 4]], cache)
    for lengths, message in (
        ([1, 3], r"row 1: cannot rewind to 3; it holds 2 tokens"),
        ([-1, 0], r"row 0: cannot rewind to -1"),
        ([1], r"rewind lengths: found int64 of shape \(1,\)"),
        (1.5, r"rewind lengths: found float64"),
    ):
        with pytest.raises(InputError, match=message):
            cache.rewind(lengths)
    assert cache.lengths.tolist() == [2, 2]
    with pytest.raises(InputError, match="expected at least the present 8"):
        cache.grow(7)


def test_a_closed_cache_says_so(session: Session) -> None:
    with session.new_cache(1, 8) as cache:
        session.forward([[1]], cache)
    for use in (
        cache.fork,
        cache.reset,
        lambda: cache.grow(9),
        lambda: session.forward([[1]], cache),
        lambda: cache.tokens,
    ):
        with pytest.raises(InputError, match="found it closed"):
            use()
