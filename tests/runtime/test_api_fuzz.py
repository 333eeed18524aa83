"""Whatever the caller passes to the Python API, only our errors come out, in one line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime import KVCache, Sampling, Session
from support.fake_package import VOCAB, write_fake_package
from support.tiny_package import tiny_package

EDGES = [2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 10**400, -(2**63), -(10**400)]
SHAPES = [(), (0,), (1,), (3,), (1, 3), (2, 2), (1, 0), (0, 3), (1, 1, 1)]
STREAM_ARGUMENTS = ["sampling", "max_new_tokens", "cache", "variables"]
DTYPES = [
    "int64",
    "int8",
    "uint64",
    "bool",
    "float32",
    "complex64",
    "object",
    "U3",
    "S2",
    "datetime64[s]",
    "i4,f4",
]


def _array(shape: tuple[int, ...], dtype: str, value: int) -> Any:
    if dtype in ("int64", "int8", "uint64", "float32", "bool"):
        return np.full(shape, value, np.int64).astype(dtype)  # -1 becomes the largest uint64
    return np.zeros(shape, dtype)


numbers = st.one_of(
    st.sampled_from([0, 1, 2, 3, 5, VOCAB - 1, VOCAB, -1, *EDGES]),
    st.sampled_from(
        [0.0, 0.5, 1.0, -1.0, 1e-46, 5e-324, 1e308, float("nan"), float("inf"), -float("inf"), 1j]
    ),
    st.sampled_from(
        [
            True,
            False,
            np.bool_(True),
            np.int64(3),
            np.uint64(2**63),
            np.float32(0.5),
            np.float16("nan"),
        ]
    ),
)
leaves = st.one_of(
    st.none(),
    numbers,
    st.sampled_from(
        [
            "",
            "x",
            "cpu",
            "\0",
            "\ud800",
            "1",
            b"x",
            b"",
            object(),
            Ellipsis,
            int,
            slice(1),
            range(3),
            {},
        ]
    ),
    st.builds(
        _array, st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.sampled_from([0, 1, VOCAB, -1])
    ),
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from([0, "content", "role"]), inner, max_size=2),
        st.sets(st.integers(0, 4), max_size=2),
    )


anything = st.recursive(leaves, _nested, max_leaves=6)
rows = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4)


def mostly(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right most of the time, so that the calls get somewhere."""
    return st.one_of(valid, valid, valid, anything)


fuzzed = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(write_fake_package(tmp_path_factory.mktemp("package")), threads=1) as opened:
        yield opened


def attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a call returns, None where it raised one of our errors; any other error is the
    test's.
    """
    try:
        return call(*arguments, **named)
    except GptOssError as error:
        text = str(error)
        assert text, "an empty message"
        assert text.isprintable(), f"{text!r} is more than a line"
        return None


@fuzzed
@given(settings=st.dictionaries(st.sampled_from(list(Sampling.__dataclass_fields__)), anything))
def test_sampling(settings: dict[str, Any]) -> None:
    attempt(Sampling, **settings)


# A thousand threads are allowed, and take a second to start.
thread_counts = anything.filter(
    lambda value: not isinstance(value, (int, np.integer)) or not 4 < value <= 1024
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_open(session: Session, data: st.DataObject, tmp_path: Path) -> None:
    package = data.draw(st.one_of(st.just(session.package.folder), anything))
    arguments: dict[str, Any] = {"threads": data.draw(st.one_of(st.just(1), thread_counts))}
    for name in ("kernels", "activations", "provider"):
        if data.draw(st.integers(0, 3)) == 0:
            arguments[name] = data.draw(anything)
    opened = attempt(Session.open, package, **arguments)
    if opened is not None:
        opened.close()


@fuzzed
@given(data=st.data())
def test_caches_and_forward(session: Session, data: st.DataObject) -> None:
    sizes = [data.draw(mostly(st.integers(1, most))) for most in (2, 12)]
    reserve, chunk = data.draw(mostly(st.integers(0, 3))), data.draw(mostly(st.integers(1, 5)))
    cache = attempt(session.new_cache, *sizes, reserve, chunk=chunk)
    if cache is None:
        return
    for _ in range(data.draw(st.integers(1, 5))):
        before = cache.lengths.tolist()
        match data.draw(
            st.sampled_from(["forward"] * 4 + ["rewind", "grow", "fork", "reset", "close", "score"])
        ):
            case "forward":
                ids = data.draw(mostly(st.lists(rows, min_size=cache.batch, max_size=cache.batch)))
                lengths, positions = (data.draw(st.one_of(st.none(), anything)) for _ in range(2))
                held = data.draw(st.one_of(*[st.just(cache)] * 5, anything))
                if attempt(session.forward, ids, held, lengths, positions) is None:
                    assert cache.lengths.tolist() == before
            case "rewind":
                attempt(cache.rewind, data.draw(anything))
            case "grow":
                attempt(cache.grow, data.draw(mostly(st.integers(1, 40))))
            case "fork":
                cache = attempt(cache.fork) or cache
            case "reset":
                attempt(cache.reset)
            case "close":
                cache.close()
            case "score":
                attempt(session.score, data.draw(mostly(rows)), data.draw(anything))
        attempt(getattr, cache, "nbytes")
        held = attempt(getattr, cache, "tokens")
        if held is not None:  # it is not closed
            assert [row.size for row in held] == cache.lengths.tolist()
    cache.close()


@fuzzed
@given(data=st.data())
def test_generate(session: Session, data: st.DataObject) -> None:
    prompt = data.draw(mostly(st.one_of(rows, st.lists(rows, min_size=1, max_size=2))))
    tokens = st.lists(st.integers(0, VOCAB), max_size=2).map(tuple)
    sampling = data.draw(
        mostly(
            st.one_of(
                st.none(),
                st.builds(
                    Sampling, temperature=st.sampled_from([0, 1e-46, 1, 1e308]), stop_tokens=tokens
                ),
            )
        )
    )
    caches: list[KVCache | None] = [None, session.new_cache(1, 9), session.new_cache(2, 9)]
    cache, most = data.draw(mostly(st.sampled_from(caches))), data.draw(mostly(st.integers(0, 5)))
    generation = attempt(session.generate, prompt, sampling, max_new_tokens=most, cache=cache)
    if generation is None:
        return
    for _ in range(3):
        if attempt(next, generation, None) is None:
            break
    attempt(getattr, generation, "finish_reason")
    generation.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(tiny_package(tmp_path_factory), threads=1) as opened:
        yield opened


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_whole_model(model: Session, data: st.DataObject) -> None:
    with model.new_cache(1, 12) as cache:
        attempt(
            model.forward,
            data.draw(mostly(rows.map(lambda row: [row]))),
            cache,
            data.draw(anything),
        )
        generation = attempt(model.generate, data.draw(mostly(rows)), max_new_tokens=2, cache=cache)
        attempt(list, generation or [])
        sampling = attempt(
            Sampling, stop=data.draw(mostly(st.lists(st.text(max_size=2), max_size=2)))
        )
        attempt(list, attempt(model.generate, [1], sampling, max_new_tokens=2) or [])
        prompt = data.draw(
            mostly(st.sampled_from(["x", [1, 2], [{"role": "user", "content": "x"}]]))
        )
        arguments = {
            name: data.draw(anything)
            for name in data.draw(st.sets(st.sampled_from(STREAM_ARGUMENTS)))
        }
        attempt(
            list, attempt(model.stream_text, prompt, **{"max_new_tokens": 2, **arguments}) or []
        )
