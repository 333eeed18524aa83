"""The calls that may show that two packages differ: each drives a session and returns what came of
it.

They share no code with `gptoss_onnx.validation`, which they are to judge. Tokens are drawn from a
seed, and sizes follow the manifest.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime import Session

Logits = NDArray[np.float32]
SEED = 13
# What a call gave, piece by piece: logits, token ids, or the words of a refusal.
Result = list[Logits | str]
Call = Callable[[Session], Result]


def _tokens(session: Session, *shape: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).integers(session.vocab, size=shape)


def _prefill(length: int | float) -> Call:
    """One call of so many tokens, or of such a part of the context, all positions wanted."""

    def run(session: Session) -> Result:
        count = length if isinstance(length, int) else int(session.manifest.longest * length)
        return [session.score(_tokens(session, count), chunk=count)]

    return run


def _chunks(size: int, length: int) -> Call:
    return lambda session: [session.score(_tokens(session, length), chunk=size)]


def _decode(session: Session) -> Result:
    """One token a call, from the first one on and well beyond the window."""
    return _chunks(1, 100)(session)


def _batch(rows: int) -> Call:
    """Rows of one length, then a token a row."""

    def run(session: Session) -> Result:
        ids = _tokens(session, rows, 20)
        with session.new_cache(rows, 20) as cache:
            parts = [ids[:, :18], ids[:, 18:19], ids[:, 19:]]
            return [session.forward(part, cache) for part in parts]

    return run


def _ragged(session: Session) -> Result:
    """Rows of unlike length, then some rows a call."""
    ids = _tokens(session, 3, 40)
    with session.new_cache(3, 60) as cache:
        found: Result = [session.forward(ids[:, :30], cache, new_lengths=[30, 5, 12])]
        for new in ([1, 1, 1], [0, 1, 1], [3, 0, 2]):
            found.append(session.forward(ids[:, 30 : 30 + max(new)], cache, new_lengths=new))
    return found


def _kept(session: Session) -> Result:
    """Two positions of one call."""
    with session.new_cache(1, 12) as cache:
        ids = _tokens(session, 1, 12)
        return [session.forward(ids, cache, logit_positions=[[3, 11]])]


def _capacity(slots: int) -> Call:
    def run(session: Session) -> Result:
        with session.new_cache(1, min(slots, session.manifest.longest)) as cache:
            return [session.forward(_tokens(session, 1, 10), cache)]

    return run


def _rewind(session: Session) -> Result:
    """Back to one token after the window has been passed, which a ring has lost."""
    with session.new_cache(1, 200, chunk=8) as cache:
        ids = _tokens(session, 1, 100)
        session.forward(ids[:, :60], cache)
        session.forward(ids[:, 60:], cache)
        cache.rewind([1])
        return [session.forward(ids[:, 1:20], cache)]


def _every_token(session: Session) -> Result:
    """Each token id once, a context at a time."""
    ids = np.arange(session.vocab)
    step = session.manifest.longest
    return [session.score(ids[at : at + step]) for at in range(0, len(ids), step)]


def _too_long(session: Session) -> Result:
    """One token more than the model takes."""
    return _prefill(session.manifest.model["max_position_embeddings"] + 1)(session)


def _text(session: Session) -> Result:
    """What is generated until a text ends, greedily."""
    ids = _tokens(session, 4, 8)
    return [str(list(session.generate(row, max_new_tokens=200))) for row in ids]


def _again(session: Session) -> Result:
    """How far a call is from itself, run again; in place of what it gives."""
    first, second = (_prefill(24)(session)[0] for _ in range(2))
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    return [first - second]


CALLS: dict[str, Call] = {
    "again": _again,
    **{f"prefill {length}": _prefill(length) for length in (45, 200)},
    "decode": _decode,
    **{f"prefill {length}": _prefill(length) for length in (2, 16, 24, 32, 131)},
    **{f"batch of {rows}": _batch(rows) for rows in (2, 5, 8)},
    "ragged": _ragged,
    "two positions": _kept,
    "capacity 600": _capacity(600),
    "rewind": _rewind,
    "chunks of 16": _chunks(16, 90),
    "text": _text,
    "every token": _every_token,
    "whole context": _prefill(1.0),
    "too long": _too_long,
}


def outcome(session: Session, name: str) -> Result:
    """Return what a call gives; a refusal is an outcome, too."""
    try:
        return CALLS[name](session)
    except GptOssError as error:
        return [f"{type(error).__name__}: {error}"]
