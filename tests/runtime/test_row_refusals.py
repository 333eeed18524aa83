"""Rows that cannot move, and rows that a call cannot run: one line, and nothing has changed."""

from collections.abc import Iterator

import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Session
from support.fake_package import write_fake_package


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Session]]:
    root = tmp_path_factory.mktemp("packages")
    opened = [
        Session.open(write_fake_package(root / str(i), (0, 3, 8), sinks=sinks), threads=1)
        for i, sinks in enumerate(((0, 0, 0), (0, 2, 4)))
    ]
    yield opened
    for session in opened:
        session.close()


@pytest.fixture(scope="module")
def session(sessions: list[Session]) -> Session:
    return sessions[0]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda cache, _: cache.save_row(2), "row: found 2, expected an integer, 0 to 1"),
        (lambda cache, _: cache.save_row(-1), "row: found -1, expected an integer, 0 to 1"),
        (lambda cache, _: cache.save_row(0, 4), "length: found 4, expected an integer, 0 to 3"),
        (lambda cache, state: cache.load_row(True, state), "row: found True, expected"),
        (lambda cache, state: cache.load_row(0, state), "row 0: the state's 8 tokens exceed"),
        (lambda cache, _: cache.load_row(0, None), "state: found NoneType, expected a RowState"),
        (lambda cache, _: cache.move_row(1, 1), "target: found 1, the source itself"),
        (lambda cache, _: cache.move_row(0, 2), "target: found 2, expected an integer, 0 to 1"),
    ],
)
def test_nonsense_is_one_line_and_changes_nothing(session: Session, use, message: str) -> None:
    longer, cache = session.new_cache(1, 9), session.new_cache(2, 7)
    session.forward([[1] * 8], longer)
    session.forward([[1, 2, 3], [4, 5, 6]], cache)
    with pytest.raises(InputError, match=message):
        use(cache, longer.save_row(0))
    assert [row.tolist() for row in cache.tokens] == [[1, 2, 3], [4, 5, 6]]
    cache.close()
    with pytest.raises(InputError, match="cache: found it closed"):
        cache.save_row(0)


def test_a_state_of_another_package(sessions: list[Session]) -> None:
    source, target = sessions[0].new_cache(1, 9), sessions[1].new_cache(1, 9)
    with pytest.raises(InputError, match="state: found one of another package"):
        target.load_row(0, source.save_row(0))


def test_rows_of_a_call_are_checked(session: Session) -> None:
    cache = session.new_cache(3, 9)
    for rows, message in ((0, "rows: found 0"), (4, "rows: found 4, expected an integer, 1 to 3")):
        with pytest.raises(InputError, match=message):
            session.forward([[1]], cache, rows=rows)
    with pytest.raises(InputError, match=r"input_ids: found shape \(3, 1\), expected \(2,"):
        session.forward([[1], [2], [3]], cache, rows=2)
    assert cache.lengths.tolist() == [0, 0, 0]
