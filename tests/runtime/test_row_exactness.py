"""Rows that move, on real graphs: the logits after a move are those of a row that never moved, bit
for bit where the kernels sum alike, and the first rows of a cache run as a batch of their own.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import KVCache, Session
from support.tolerances import MOVED_ROWS

LONG = 200  # tokens: windows of the demo package, 128, have wrapped
KERNELS = ("native", "portable")


@pytest.fixture(scope="module")
def keeping_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny package whose window layers keep their first tokens, with a cache of bfloat16."""
    folder = tmp_path_factory.mktemp("keeping")
    document = tiny_document("gpt_oss_lab", sliding_window=9, sink_tokens=3, positions="none")
    make_checkpoint(folder / "checkpoint", document, seed=4)
    export(folder / "checkpoint", folder / "package", kv_dtype="bfloat16")
    return folder / "package"


@pytest.fixture(scope="module", params=["demo", "tiny", "keeping"])
def folder(
    request: pytest.FixtureRequest,
    demo_package: Package,
    tiny_package: Package,
    keeping_package: Path,
) -> Path:
    return {
        "demo": demo_package.folder,
        "tiny": tiny_package.folder,
        "keeping": keeping_package,
    }[request.param]


@pytest.fixture(scope="module", params=KERNELS)
def session(request: pytest.FixtureRequest, folder: Path) -> Iterator[Session]:
    with Session.open(folder, kernels=request.param, threads=1) as opened:
        yield opened


def tokens_of(session: Session, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, session.vocab, count)


def decode(session: Session, cache: KVCache, row: int, tokens: np.ndarray) -> np.ndarray:
    """Run tokens on one row of a cache, one a call, and return their logits."""
    new = np.zeros(cache.batch, np.int64)
    new[row] = 1
    steps = []
    for token in tokens:
        ids = np.full((cache.batch, 1), token)
        steps.append(session.forward(ids, cache, new)[row, 0])
    return np.stack(steps)


@pytest.mark.parametrize("count", [5, LONG])
def test_a_row_goes_on_as_if_it_had_not_moved(session: Session, count: int) -> None:
    """Through a state into a cache of the same sizes, in which another text has been. The neighbour
    is the same in both, since the portable bodies sum over a batch.
    """
    tokens, more = tokens_of(session, count), tokens_of(session, 12, 1)
    source, target = (session.new_cache(2, 260, 4, chunk=32) for _ in range(2))
    session.forward(np.stack((tokens[::-1], tokens)), source)
    session.forward(np.stack((tokens[::-1], tokens_of(session, count, 2))), target)
    target.load_row(1, source.save_row(1))
    expected = decode(session, source, 1, more)
    np.testing.assert_array_equal(decode(session, target, 1, more), expected)
    # and from where the reserve allows to go back to
    source.rewind(np.array([count, count + 10]))
    target.rewind(np.array([count, count + 10]))
    expected = decode(session, source, 1, more)
    np.testing.assert_array_equal(decode(session, target, 1, more), expected)


def test_the_engine_s_way(session: Session) -> None:
    """A prompt that was read in a cache of one row goes on as first row of a larger cache of many,
    whose rings are alike.
    """
    tokens, more = tokens_of(session, LONG), tokens_of(session, 12, 1)
    stage, slots = session.new_cache(1, 220, chunk=40), session.new_cache(3, 300, chunk=40)
    session.forward(np.stack([tokens_of(session, 90, seed) for seed in (5, 6, 7)]), slots)
    session.forward(tokens[None], stage)
    slots.load_row(2, stage.save_row(0))
    slots.move_row(2, 0)
    for token in more:
        expected = session.forward([[token]], stage)
        np.testing.assert_array_equal(session.forward([[token]], slots, rows=1), expected)


def test_the_way_makes_no_difference(session: Session) -> None:
    """Through caches of other sizes, whose rings turn elsewhere, the same bits arrive; beside a row
    that stays where it is only the order of sums differs.
    """
    tokens, more = tokens_of(session, LONG), tokens_of(session, 12, 1)
    stage, middle = session.new_cache(1, 220, 8, chunk=40), session.new_cache(2, 250, 3, chunk=7)
    large, other = (session.new_cache(3, 300, chunk=16) for _ in range(2))
    session.forward(tokens[None], stage)
    large.load_row(2, stage.save_row(0))
    middle.load_row(0, stage.save_row(0))
    middle.move_row(0, 1)
    other.load_row(0, middle.save_row(1))
    other.move_row(0, 2)
    found = decode(session, large, 2, more)
    np.testing.assert_array_equal(decode(session, other, 2, more), found)
    expected = decode(session, stage, 0, more)
    limit = MOVED_ROWS[session.manifest.kv_dtype]
    np.testing.assert_allclose(found, expected, atol=limit, rtol=0)


def test_first_rows_run_as_a_batch_of_their_own(session: Session) -> None:
    whole, part = (session.new_cache(4, 240, chunk=64) for _ in range(2))
    prompts = np.stack([tokens_of(session, 150, seed) for seed in range(4)])
    session.forward(prompts, whole)
    session.forward(prompts, part)
    last = part.save_row(3)
    for rows in (3, 1, 2, 3):
        alone = session.new_cache(rows, 240, chunk=64)
        for row in range(rows):
            alone.load_row(row, part.save_row(row))
        ids = tokens_of(session, 4, rows)[:, None]
        logits = session.forward(ids[:rows], part, rows=rows)
        np.testing.assert_array_equal(logits, session.forward(ids[:rows], alone))
        if session.kernels == "native":  # the portable bodies sum over a batch, and round otherwise
            expected = session.forward(ids, whole, [1] * rows + [0] * (4 - rows))
            np.testing.assert_array_equal(logits, expected[:rows])
            assert part.lengths.tolist() == whole.lengths.tolist()
    assert part.start.tolist()[3] == 128  # the last chunk of the prompt
    for pair, was in zip(part.save_row(3).blocks, last.blocks, strict=True):
        np.testing.assert_array_equal(pair, was)
