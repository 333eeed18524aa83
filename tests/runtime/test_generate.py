"""Generation: greedy continuations, rows that end at different times, stops, capacity, and caches
carried on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import Sampling, Session, generation
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)
BIAS = np.linspace(0, 40, VOCAB, dtype=np.float32)[::-1]
ENDLESS = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = write_fake_package(
        tmp_path_factory.mktemp("package"), WINDOWS, bias=BIAS.tolist(), sign=-1
    )
    # Token t reads as the letter chr(97 + t).
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({chr(97 + t): t for t in range(VOCAB)}, unk_token="a")
    )
    backend.decoder = tokenizers.decoders.Fuse()
    backend.save(str(folder / "tokenizer.json"))
    with Session.open(folder, threads=1) as opened:
        yield opened


def _greedy(prompt: list[int], count: int) -> list[int]:
    """Continue from plain histories."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int((BIAS - expected_logits(tokens, WINDOWS, len(tokens) - 1)).argmax()))
    return tokens[len(prompt) :]


def test_one_sequence_yields_ids_lazily(session: Session) -> None:
    continuation = session.generate([1, 2, 3], ENDLESS, max_new_tokens=9)
    assert continuation.finish_reason is None
    assert next(continuation) == _greedy([1, 2, 3], 1)[0]
    assert continuation.prefill_seconds > 0
    assert [*continuation.tokens[0], *continuation] == _greedy([1, 2, 3], 9)
    assert continuation.finish_reason == "length"
    assert continuation.decode_seconds > 0
    assert continuation.cache is None
    assert list(continuation) == []


def test_rows_end_at_their_own_time(session: Session) -> None:
    prompts = [[1, 2, 3], [4], [7, 7, 7, 7, 7]]
    alone = [list(session.generate(prompt, max_new_tokens=40)) for prompt in prompts]
    continuation = session.generate(prompts, max_new_tokens=40)
    steps = list(continuation)
    for row, tokens in enumerate(alone):
        column = [step[row] for step in steps]
        assert column == tokens + [None] * (len(steps) - len(tokens))
        assert continuation.tokens[row] == tokens
        ended = 5 in tokens  # the package's end-of-text token
        assert continuation.finish_reasons[row] == ("stop" if ended else "length")
        assert 5 not in tokens[:-1]
    with pytest.raises(InputError, match="use finish_reasons"):
        _ = continuation.finish_reason


def test_stop_tokens_end_a_row_and_are_its_last(session: Session) -> None:
    free = _greedy([1, 2], 30)
    stop = next(token for token in free if token != free[0])
    continuation = session.generate([1, 2], Sampling(stop_tokens=(stop,)), max_new_tokens=30)
    assert list(continuation) == free[: free.index(stop) + 1]
    assert continuation.finish_reason == "stop"


def test_stop_strings_end_a_row(session: Session) -> None:
    free = _greedy([1, 2], 30)
    text = "".join(chr(97 + token) for token in free)
    stop = text[3:5]
    end = text.find(stop) + 2
    continuation = session.generate(
        [1, 2], Sampling(stop_tokens=(), stop=(stop,)), max_new_tokens=30
    )
    assert list(continuation) == free[:end]
    assert continuation.finish_reason == "stop"
    stream = session.tokenizer.stream((stop,))
    assert "".join(stream.push(token) for token in free) == text[: end - 2]


def test_stop_strings_need_a_tokenizer(tmp_path: Path) -> None:
    with (
        Session.open(write_fake_package(tmp_path), threads=1) as bare,
        pytest.raises(PackageError, match=r"found no tokenizer\.json"),
    ):
        bare.generate([1], Sampling(stop=("x",)))


def test_capacity_ends_with_length_and_the_cache_goes_on(session: Session) -> None:
    cache = session.new_cache(1, 8)
    continuation = session.generate([1, 2, 3], ENDLESS, max_new_tokens=100, cache=cache)
    tokens = list(continuation)
    # 3 + 5 tokens fill the cache, and the last logits give one more
    assert tokens == _greedy([1, 2, 3], 6)
    assert continuation.finish_reason == "length"
    assert cache.lengths.tolist() == [8]
    cache.grow(20)
    more = list(session.generate([tokens[-1]], ENDLESS, max_new_tokens=3, cache=cache))
    assert tokens + more == _greedy([1, 2, 3], 9)


def test_an_own_cache_grows_as_needed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_ROOM", 2)
    prompts = [[1, 2, 3], [4]]
    continuation = session.generate(prompts, ENDLESS, max_new_tokens=40)
    list(continuation)
    assert continuation.tokens == [_greedy(prompt, 40) for prompt in prompts]
    assert continuation.finish_reasons == ("length", "length")


def test_sampling_is_reproducible_and_rows_are_independent(session: Session) -> None:
    sampling = Sampling(temperature=30, top_k=9, top_p=0.95, min_p=0.01, seed=7, stop_tokens=())
    together = session.generate([[1, 2], [1, 2]], sampling, max_new_tokens=12)
    list(together)
    assert together.tokens[0] == list(session.generate([1, 2], sampling, max_new_tokens=12))
    assert together.tokens[0] != together.tokens[1]


def test_leaving_early_frees_the_cache(session: Session) -> None:
    with session.generate([1], ENDLESS, max_new_tokens=5) as continuation:
        next(continuation)
        cache = continuation.cache
        assert cache is not None
    with pytest.raises(InputError, match="found it closed"):
        _ = cache.nbytes
    assert list(continuation) == []


def test_no_tokens_wanted_runs_nothing(session: Session) -> None:
    continuation = session.generate([1], max_new_tokens=0)
    assert list(continuation) == []
    assert continuation.finish_reason == "length"
    assert continuation.prefill_seconds == 0


def test_wrong_prompts_are_named(session: Session) -> None:
    cache = session.new_cache(2, 8)
    wrong: tuple[tuple[Any, dict[str, Any], str], ...] = (
        ([], {}, "row 0: found an empty prompt"),
        ([[1], []], {}, "row 1: found an empty prompt"),
        ([1, VOCAB], {}, rf"row 0: found token ids 1 to {VOCAB}, expected 0 to {VOCAB - 1}"),
        ([0.5], {}, "row 0: found float64"),
        ([1], {"cache": cache}, "cache: found 2 rows, expected 1"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens: found -1"),
    )
    for prompt, options, message in wrong:
        with pytest.raises(InputError, match=message):
            session.generate(prompt, **options)
