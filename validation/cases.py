"""The parity cases: each drives a session one way and returns the logits found and expected.

Legend: T positions, V vocabulary, W the window (or a stand-in where no layer has one).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.expected import Expected
from gptoss_onnx.validation.metrics import Logits


@dataclass(frozen=True)
class Setting:
    """What every case works on: a session, the reference, and the sizes to use.

    `sequence` is one long token sequence, several windows long, that most cases share so that the
    reference runs it once; `window` is W.
    """

    session: Session
    expected: Expected
    sequence: list[int]
    window: int


# Found and expected logits, float32 (T, V) each.
Outcome = tuple[Logits, Logits]


@dataclass(frozen=True)
class Case:
    """A name, one line that says what is done, the function that does it, and what it needs the
    target to offer.

    `needs` is in the words of `Manifest.unsupported`; None where every target can do it.
    """

    name: str
    description: str
    run: Callable[[Setting], Outcome]
    needs: str | None = None


def prefill(setting: Setting) -> Outcome:
    """All positions in one call."""
    found = setting.session.score(setting.sequence, chunk=len(setting.sequence))
    return found, setting.expected.score(setting.sequence)


def decode(setting: Setting) -> Outcome:
    """A short prompt, then one token a call to the end of the sequence, several windows on."""
    tokens, prompt = setting.sequence, max(1, setting.window // 2)
    with setting.session.new_cache(1, len(tokens)) as cache:
        found = [setting.session.forward([tokens[:prompt]], cache)[0]]
        found += [setting.session.forward([[token]], cache)[0] for token in tokens[prompt:]]
    return np.concatenate(found), setting.expected.score(tokens)[prompt - 1 :]


def chunked(size: int) -> Callable[[Setting], Outcome]:
    """Return a case that runs the sequence in calls of `size` tokens."""

    def run(setting: Setting) -> Outcome:
        return setting.session.score(setting.sequence, chunk=size), setting.expected.score(
            setting.sequence
        )

    return run


def ragged(setting: Setting) -> Outcome:
    """Three rows of unlike length in one right-padded call, then decode steps in which rows take
    turns.
    """
    window = setting.window
    rows = [setting.expected.tokens(count) for count in (2 * window + 5, max(1, window // 2), 1)]
    steps = [setting.expected.tokens(2 * window) for _ in rows]
    longest = max(map(len, rows))
    padded = np.array([row + [0] * (longest - len(row)) for row in rows])
    taken = [0, 0, 0]
    found = []
    with setting.session.new_cache(3, longest + 2 * window) as cache:
        logits = setting.session.forward(padded, cache, new_lengths=[len(row) for row in rows])
        found += [(row, taken[row], logits[row]) for row in range(3)]
        for step in range(2 * window):
            # rows with no new token are part of the contract
            active = [step % 2 == 0, True, step % 3 != 1]
            ids = [[steps[row][taken[row]]] for row in range(3)]
            logits = setting.session.forward(ids, cache, new_lengths=[int(on) for on in active])
            for row in range(3):
                taken[row] += active[row]
                if active[row]:
                    found.append((row, taken[row], logits[row]))
    scores = [
        setting.expected.score(row + extra[:count])
        for row, extra, count in zip(rows, steps, taken, strict=True)
    ]
    expected = [scores[row][len(rows[row]) - 1 + count] for row, count, _ in found]
    return np.concatenate([logits for _, _, logits in found]), np.stack(expected)


def even(setting: Setting) -> Outcome:
    """Three rows of one length in one call, then a token a row and call, beyond the window."""
    steps = 2 * setting.window
    rows = [setting.expected.tokens(setting.window + 5 + steps) for _ in range(3)]
    prompt = len(rows[0]) - steps
    with setting.session.new_cache(3, len(rows[0])) as cache:
        found = [setting.session.forward([row[:prompt] for row in rows], cache)]
        found += [
            setting.session.forward([[row[prompt + step]] for row in rows], cache)
            for step in range(steps)
        ]
    expected = np.stack([setting.expected.score(row)[prompt - 1 :] for row in rows])  # (3, T, V)
    return np.concatenate(np.concatenate(found, axis=1)), np.concatenate(expected)


def rewind(setting: Setting) -> Outcome:
    """Tokens that prove wrong are taken back, again and again, down to the last position the
    reserve allows.
    """
    tokens, reserve = setting.sequence, min(setting.window, 8)
    stride, found, kept = max(1, setting.window // 2), [], []
    with setting.session.new_cache(1, len(tokens) + reserve + 1, reserve=reserve) as cache:
        for begin in range(0, len(tokens), stride):
            piece = tokens[begin : begin + stride]
            found.append(setting.session.forward([piece], cache)[0])
            kept.append(begin + len(piece) - 1)
            # the last call begins `reserve` after the right ones
            for wrong in setting.expected.tokens(reserve + 1):
                setting.session.forward([[wrong]], cache)
            cache.rewind([begin + len(piece)])
    return np.concatenate(found), setting.expected.score(tokens)[kept]


def empty_past(setting: Setting) -> Outcome:
    """The smallest call: one token, nothing cached."""
    token = setting.sequence[:1]
    with setting.session.new_cache(1, 1) as cache:
        return setting.session.forward([token], cache)[0], setting.expected.last(token)


def long_context(setting: Setting) -> Outcome:
    """Past the length the model was first trained on, where YaRN's ramp shows; the last positions
    are compared.
    """
    config = setting.expected.config
    original = config.longest if config.rope is None else config.rope.original_longest
    length = min(original + 64, config.longest)
    tokens, compared = setting.expected.tokens(length), 64
    positions = np.arange(max(0, length - compared), length)
    with setting.session.new_cache(1, length) as cache:
        found = setting.session.forward([tokens], cache, logit_positions=[positions])[0]
    return found, setting.expected.score(tokens)[positions]


QUICK = (
    Case("prefill", "the whole sequence in one call", prefill),
    Case("decode", "one token a call, to four times the window", decode),
    Case("chunks of 7", "the sequence in calls of 7 tokens", chunked(7)),
    Case("chunks of 64", "the sequence in calls of 64 tokens", chunked(64)),
    Case("even batch", "three rows of one length, decoding beyond the window", even),
    Case(
        "ragged batch",
        "three rows of unlike length, right-padded, decoding in turns",
        ragged,
        "ragged batches",
    ),
    Case(
        "rewind", "wrong tokens taken back within the reserve, again and again", rewind, "rewinding"
    ),
    Case("empty past", "one token with nothing cached", empty_past),
)
FULL = (*QUICK, Case("long context", "past the original context length", long_context))
