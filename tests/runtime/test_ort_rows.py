"""Rows of a batch on target ort for ONNX Runtime 1.32: each gives what it would give alone, however
calls, rewinding, forks and growth follow on one another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import KVCache, Session
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import CACHES
from support.tolerances import ORT_ROWS

# What differs for attention: windows and sinks, neither, ALiBi, both, learned positions, of which
# padding may be beyond the last, and windows alone.
MODELS: dict[str, dict[str, Any]] = {
    "gpt_oss": {},
    "llama": {},
    "bloom": {},
    "gpt_oss_lab": {"positions": "alibi", "sliding_window": 5},
    "gpt2": {"n_positions": 80},
    "mistral": {},
}
LONGEST = 80


@dataclass(frozen=True)
class Tiny:
    """A session, the logits (T, V) that a sequence is to have, and at which positions (T) they are
    decided: no router has chosen by a hair before.
    """

    session: Session
    expected: Callable[[list[int]], NDArray[np.float32]]
    decided: Callable[[list[int]], NDArray[np.bool_]]
    tolerance: float


@pytest.fixture(scope="module", params=[*MODELS, "float16"])
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp("rows")
    kv_dtype = "float16" if request.param == "float16" else "float32"
    model_type = "gpt_oss" if request.param == "float16" else request.param
    document = tiny_document(model_type, **MODELS[model_type])
    make_checkpoint(folder / "checkpoint", document, seed=5)
    package = export(
        folder / "checkpoint",
        folder / "package",
        target="ort",
        kv_dtype=kv_dtype,
        onnxruntime="1.32",
    )
    with (
        open_checkpoint(folder / "checkpoint") as opened,
        Session.open(package.folder, threads=1) as session,
    ):
        reference = Decoder.from_checkpoint(opened)
        scored = Expected(reference, seed=0, near=CACHES[kv_dtype].near)

        def expected(tokens: list[int]) -> NDArray[np.float32]:
            if kv_dtype == "float16":  # what a row gives alone, rounded alike
                return session.score(tokens)
            return scored.score(tokens).logits

        def decided(tokens: list[int]) -> NDArray[np.bool_]:
            return scored.score(tokens).decided

        yield Tiny(session, expected, decided, ORT_ROWS[kv_dtype])


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_rows_go_their_own_ways(tiny: Tiny, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3), "batch")
    capacity = data.draw(st.integers(10, LONGEST - 20), "capacity")
    reserve = data.draw(st.sampled_from([0, 1, 6]), "reserve")
    chunk = data.draw(st.sampled_from([1, 4, 9, 512]), "chunk")
    rows: list[list[int]] = [[] for _ in range(batch)]
    cache = tiny.session.new_cache(batch, capacity, reserve, chunk=chunk)
    for _ in range(data.draw(st.integers(2, 9), "operations")):
        match data.draw(st.sampled_from(["forward"] * 5 + ["rewind"] * 2 + ["fork", "grow"])):
            case "forward":
                forward(tiny, cache, rows, data)
            case "rewind":
                rewind(cache, rows, data)
            case "fork":  # the original goes on as it likes: the fork must not notice
                fork = cache.fork()
                forward(tiny, cache, [list(row) for row in rows], data)
                cache.close()
                cache = fork
            case "grow":
                cache.grow(min(LONGEST, cache.capacity + data.draw(st.integers(0, 20), "more")))
        assert cache.lengths.tolist() == [len(row) for row in rows]
    cache.close()


def forward(tiny: Tiny, cache: KVCache, rows: list[list[int]], data: st.DataObject) -> None:
    columns = data.draw(st.sampled_from([1, 1, 3, 8, 30]), "columns")
    new = []
    for row in rows:
        most = min(columns, cache.capacity - len(row))
        new.append(data.draw(st.integers(0, most), "new"))
    vocab = tiny.session.vocab
    seed = data.draw(st.integers(0, 99), "seed")
    ids = np.random.default_rng(seed).integers(vocab, size=(cache.batch, columns))
    positions = np.tile(np.arange(columns), (cache.batch, 1))
    found = tiny.session.forward(ids, cache, new, positions)
    for row, count, tokens, logits in zip(rows, new, ids.tolist(), found, strict=True):
        row += tokens[:count]
        assert not logits[count:].any()
        if count:
            expected, sure = tiny.expected(row)[-count:], tiny.decided(row)[-count:]
            found_sure, expected_sure = logits[:count][sure], expected[sure]
            np.testing.assert_allclose(found_sure, expected_sure, atol=tiny.tolerance, rtol=0)


def rewind(cache: KVCache, rows: list[list[int]], data: st.DataObject) -> None:
    """Down to what the cache says, which is at most `start` − reserve, or to nothing."""
    assert (cache.rewind_limit <= np.maximum(cache.start - cache.reserve, 0)).all()
    targets = []
    for row, least in zip(rows, cache.rewind_limit, strict=True):
        target = data.draw(st.integers(int(least), len(row)), "target")
        targets.append(data.draw(st.sampled_from([target, 0]), "or nothing"))
    cache.rewind(targets)
    for row, target in zip(rows, targets, strict=True):
        del row[target:]


def test_a_full_row_and_an_empty_one_wait(tiny: Tiny) -> None:
    """Neither has a token in a call of many columns, twice."""
    full, other = list(range(40)), list(range(40, 0, -1))
    with tiny.session.new_cache(3, 40, reserve=1, chunk=16) as cache:
        tiny.session.forward([full, other, other], cache, [40, 2, 0])
        positions = np.tile(np.arange(38), (3, 1))
        ids = [[0] * 38, other[2:], [0] * 38]
        logits = tiny.session.forward(ids, cache, [0, 38, 0], positions)
        expected = tiny.expected(other)[2:]
        np.testing.assert_allclose(logits[1], expected, atol=tiny.tolerance, rtol=0)
        cache.rewind([39, 40, 0])
        logits = tiny.session.forward([[39], [0], [40]], cache, [1, 0, 1])[:, 0]
        for found, tokens in ((logits[0], full), (logits[2], [40])):
            expected = tiny.expected(tokens)[-1]
            np.testing.assert_allclose(found, expected, atol=tiny.tolerance, rtol=0)
