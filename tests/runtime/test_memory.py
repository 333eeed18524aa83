"""What is closed, or outgrown, gives its memory back: each buffer by itself, and bytes of the
process as glibc counts them.
"""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.runtime import Session
from support.allocated import allocated_bytes, needs_glibc
from support.fake_package import LAYERS, write_fake_package

CAPACITY = 1 << 20  # tokens: megabytes, beside which nothing else of the process counts
NOISE = 1 << 18  # bytes that Python and ONNX Runtime may take or free by the way


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def session(package: Path) -> Iterator[Session]:
    with Session.open(package, threads=1) as opened:
        yield opened


def _held(*objects: Any) -> list[weakref.ref[Any]]:
    """Return weak references to the buffers of caches, by which a test sees that they were
    freed.
    """
    return [
        weakref.ref(buffer.array) for cache in objects for pair in cache.buffers for buffer in pair
    ]


def _alive(references: list[weakref.ref[Any]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in references)


def test_close_and_grow_free_the_buffers_they_no_longer_need(session: Session) -> None:
    cache = session.new_cache(2, 8)
    session.forward([[1, 2], [3, 4]], cache)  # bound: ONNX Runtime refers to the buffers as well
    small = _held(cache)
    assert _alive(small) == 2 * LAYERS
    twin = cache.fork()
    cache.grow(64)
    assert _alive(small) == 0
    large, forked = _held(cache), _held(twin)
    session.forward([[5], [6]], cache)
    cache.close()
    assert _alive(large) == 0
    assert _alive(forked) == 2 * LAYERS
    del twin
    assert _alive(forked) == 0


def test_a_generation_frees_its_own_cache_at_its_end(session: Session) -> None:
    generation = session.generate([1, 2, 3], max_new_tokens=3)
    next(generation)
    held = _held(generation.cache)
    list(generation)
    assert _alive(held) == 0


def test_a_closed_session_frees_the_graph_while_caches_live_on(package: Path) -> None:
    session = Session.open(package, threads=1)
    cache = session.new_cache(1, 8)
    session.forward([[1]], cache)
    graph = weakref.ref(session._graph._inference)
    session.close()
    assert _alive([graph]) == 0
    assert cache.lengths.tolist() == [1]


def _allocated() -> int:
    gc.collect()
    return allocated_bytes()


def _size(capacity: int) -> int:
    """Return the bytes of a cache of two rows: its full layer and its token ids, which count."""
    return 2 * capacity * (2 * 4 + 8)


@needs_glibc
def test_a_cache_takes_and_gives_back_the_bytes_of_its_capacity(session: Session) -> None:
    for _ in range(2):  # ONNX Runtime's arena; what a call needs is planned in the first
        session.forward([[1, 2], [3, 4]], session.new_cache(2, CAPACITY))
    before = _allocated()
    cache = session.new_cache(2, CAPACITY)
    session.forward([[1, 2], [3, 4]], cache)
    assert _allocated() - before == pytest.approx(_size(CAPACITY), abs=NOISE)
    cache.grow(2 * CAPACITY)
    assert _allocated() - before == pytest.approx(_size(2 * CAPACITY), abs=NOISE)
    cache.close()
    assert _allocated() - before < NOISE


@needs_glibc
def test_closed_sessions_give_back_what_they_took(package: Path) -> None:
    def opened() -> list[Session]:
        sessions = [Session.open(package, threads=1) for _ in range(8)]
        for each in sessions:
            each.score([1, 2, 3])
        return sessions

    for each in opened():  # what is filled once
        each.close()
    before = _allocated()
    sessions = opened()
    taken = _allocated() - before
    assert taken > 8 * NOISE
    for each in sessions:
        each.close()
    assert _allocated() - before < taken / 10


@needs_glibc
def test_a_closed_generation_gives_back_its_own_cache(session: Session) -> None:
    prompts = [[1, 2, 3]] * 2000

    def begun() -> Any:
        generation = session.generate(prompts, max_new_tokens=200)
        next(generation)
        return generation

    begun().close()
    before = _allocated()
    generation = begun()
    taken = _allocated() - before
    assert taken > len(prompts) * 200 * (2 * 4 + 8)
    generation.close()
    assert _allocated() - before < taken / 10
