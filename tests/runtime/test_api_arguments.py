"""Arguments of the Python API that once raised something else, hung, or were refused wrongly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.runtime import Sampling, Session
from support.fake_package import VOCAB, write_fake_package


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(write_fake_package(tmp_path_factory.mktemp("package")), threads=1) as opened:
        yield opened


def test_sizes_beyond_any_memory_are_refused(session: Session) -> None:
    for batch, capacity in ((1, 2**62), (2**62, 1), (1, 2**64), (1, 10**400)):
        with pytest.raises(
            InputError, match=r"^cache (batch|capacity): found \d+.*, expected an integer, 1 to"
        ):
            session.new_cache(batch, capacity)
    with pytest.raises(
        RuntimeUnavailable,
        match=r"^KV cache: no memory for .* of shape \(.*\); ask for less capacity",
    ):
        session.new_cache(2**31 - 1, 2**31 - 1)
    with session.new_cache(1, 4) as cache:
        session.forward([[1, 2]], cache)
        for wrong in (2**62, "9", None, 4.5, True):
            with pytest.raises(InputError, match=r"^cache capacity: found "):
                cache.grow(wrong)  # type: ignore[arg-type]  # that is the point
        cache.grow(np.int64(9))  # type: ignore[arg-type]  # welcome, though not what the type says
        assert type(cache.capacity) is int
        assert cache.tokens[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    "threads", [100_000, 0, -1, True, 1.0, "2", np.bool_(True), np.int64(5000)]
)
def test_thread_counts_that_hang_or_mean_nothing_are_refused(
    session: Session, threads: Any
) -> None:
    with pytest.raises(InputError, match=r"^threads: found .*, expected an integer, 1 to 1024$"):
        Session.open(session.package.folder, threads=threads)


@pytest.mark.parametrize("package", [None, 5, b"bytes", "", "a\0b", "\ud800", ["a"], Path])
def test_packages_that_are_no_path_are_named(package: Any) -> None:
    with pytest.raises(InputError, match=r"^package: found .*, expected the path of a folder$"):
        Session.open(package)


def test_integers_of_numpy_are_welcome(session: Session) -> None:
    with Session.open(session.package.folder, threads=np.int32(1)) as opened:  # type: ignore[arg-type]  # welcome
        generation = opened.generate(np.array([1, 2], np.uint64), max_new_tokens=np.int64(3))  # type: ignore[call-overload]
        assert len(list(generation)) <= 3
        assert opened.score(np.array([1, 2], np.uint8), np.int64(1)).shape == (2, VOCAB)  # type: ignore[arg-type]


def test_unsigned_ids_are_named_as_they_are(session: Session) -> None:
    large = np.array([[1, 2**64 - 1]], np.uint64)
    with session.new_cache(1, 4) as cache:
        with pytest.raises(
            InputError,
            match=rf"^input_ids\[0, 1\]: found 18446744073709551615, expected 0 to {VOCAB - 1}",
        ):
            session.forward(large, cache)
        with pytest.raises(
            InputError, match=r"^new_lengths\[0\]: found 18446744073709551615, expected 0 to 2"
        ):
            session.forward([[1, 2]], cache, large[0, 1:])
        with pytest.raises(
            InputError, match=r"^logit_positions\[0, 1\]: found 18446744073709551615"
        ):
            session.forward([[1, 2]], cache, None, large)
        with pytest.raises(InputError, match=r"^row 0: found token ids 1 to 18446744073709551615"):
            session.generate(large[0])
        with pytest.raises(InputError, match=r"^rewind lengths: found 18446744073709551615"):
            cache.rewind(large[0, 1:])
        session.forward(large, cache, [1])  # padding is not read


@pytest.mark.parametrize(
    "prompt", [None, 5, 1.5, "text", b"bytes", {0: [1]}, {1, 2}, [None], ["a"], [[1], 2], iter([1])]
)
def test_prompts_of_other_types_are_named(session: Session, prompt: Any) -> None:
    with pytest.raises(InputError, match=r"^(token_ids|row [01]): found "):
        session.generate(prompt)


@pytest.mark.parametrize("cache", ["x", None, 3, object()])
def test_caches_of_other_types_are_named(session: Session, cache: Any) -> None:
    with pytest.raises(
        InputError,
        match=r"^cache: found (str|NoneType|int|object), expected one that new_cache made",
    ):
        session.forward([[1]], cache)


def test_stop_tokens_are_tokens(session: Session) -> None:
    with pytest.raises(
        InputError, match=rf"^stop_tokens: found {VOCAB}, expected 0 to {VOCAB - 1}$"
    ):
        session.generate([1], Sampling(stop_tokens=(1, VOCAB)))
    assert session.generate([1]).stop_tokens == {5}
    assert not session.generate([1]).endless
    assert session.generate([1], Sampling(stop_tokens=())).endless
