"""The ways to drive a session: each returns the logits it gave and those of the reference.

Legend: T positions, V vocabulary, W the window (or a stand-in if no layer slides; see `sizes`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.sizes import RESERVE, Sizes
from gptoss_onnx.validation.judging.expected import Expected, Scored
from gptoss_onnx.validation.judging.metrics import Logits

LAST = 64  # positions that "long context" compares


@dataclass(frozen=True)
class Drive:
    """A session, the reference, and the sizes to use.

    `sequence` is one long token sequence that goes beyond the window. Most drives share it, so that
    the reference runs it once.
    """

    session: Session
    expected: Expected
    sizes: Sizes
    sequence: list[int]


# Logits of the session, float32 (T, V), and of the reference at the same positions.
Pair = tuple[Logits, Scored]


def prefill(drive: Drive) -> Pair:
    """All positions in one call."""
    found = drive.session.score(drive.sequence, chunk=len(drive.sequence))
    return found, drive.expected.score(drive.sequence)


def decode(drive: Drive) -> Pair:
    """A prompt, then one token a call to the end of the sequence, beyond the window."""
    tokens, prompt = drive.sequence, drive.sizes.prompt
    with drive.session.new_cache(1, len(tokens)) as cache:
        found = [drive.session.forward([tokens[:prompt]], cache)[0]]
        found += [drive.session.forward([[token]], cache)[0] for token in tokens[prompt:]]
    return np.concatenate(found), drive.expected.score(tokens)[prompt - 1 :]


def chunked(size: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs the sequence in calls of `size` tokens."""

    def run(drive: Drive) -> Pair:
        found = drive.session.score(drive.sequence, chunk=size)
        return found, drive.expected.score(drive.sequence)

    return run


def ragged(drive: Drive) -> Pair:
    """Three rows of different lengths in one right-padded call, then some rows a step."""
    steps = drive.sizes.steps
    lengths = (drive.sizes.length - steps, max(1, drive.sizes.window // 2), 1)
    whole = [drive.expected.tokens(length + steps) for length in lengths]
    rows = [tokens[:length] for tokens, length in zip(whole, lengths, strict=True)]
    later = [tokens[length:] for tokens, length in zip(whole, lengths, strict=True)]
    longest = max(lengths)
    padded = np.array([row + [0] * (longest - len(row)) for row in rows])
    taken = [0, 0, 0]
    found = []
    with drive.session.new_cache(3, longest + steps) as cache:
        logits = drive.session.forward(padded, cache, new_lengths=lengths)
        found += [(row, taken[row], logits[row]) for row in range(3)]
        for step in range(steps):
            # rows with no new token are part of the contract
            active = [step % 2 == 0, True, step % 3 != 1]
            ids = [[later[row][taken[row]]] for row in range(3)]
            logits = drive.session.forward(ids, cache, new_lengths=[int(on) for on in active])
            for row in range(3):
                taken[row] += active[row]
                if active[row]:
                    found.append((row, taken[row], logits[row]))
    scores = [
        drive.expected.score(tokens[: length + count])
        for tokens, length, count in zip(whole, lengths, taken, strict=True)
    ]
    expected = [scores[row][[lengths[row] - 1 + count]] for row, count, _ in found]
    return np.concatenate([logits for _, _, logits in found]), Scored.join(expected)


def ragged_chunks(drive: Drive) -> Pair:
    """Three rows of unlike length that go on by several tokens, of which some have none: more than
    the window and fewer.
    """
    window, length = drive.sizes.window, drive.sizes.length
    calls = (
        (1, min(window + 3, length - 1), 0),
        (max(1, window // 2), 0, 1),
        (length, length, length),
    )
    rows = [drive.expected.tokens(length) for _ in range(3)]
    done = [0, 0, 0]
    found: list[list[Logits]] = [[], [], []]
    with drive.session.new_cache(3, length) as cache:
        for call in calls:
            new = [min(count, length - held) for count, held in zip(call, done, strict=True)]
            columns = np.arange(max(new))
            ids = [
                np.resize(tokens[held : held + count] or [0], columns.size)
                for tokens, held, count in zip(rows, done, new, strict=True)
            ]
            positions = np.tile(columns, (3, 1))
            logits = drive.session.forward(ids, cache, new, positions)
            for row, count in enumerate(new):
                found[row].append(logits[row, :count])
                done[row] += count
    expected = Scored.join([drive.expected.score(row) for row in rows])
    return np.concatenate([piece for pieces in found for piece in pieces]), expected


def even(drive: Drive) -> Pair:
    """Three rows of one length in one call, then a token a row and call, beyond the window."""
    steps = drive.sizes.steps
    rows = [drive.expected.tokens(drive.sizes.length) for _ in range(3)]
    prompt = drive.sizes.length - steps
    with drive.session.new_cache(3, drive.sizes.length) as cache:
        found = [drive.session.forward([row[:prompt] for row in rows], cache)]
        found += [
            drive.session.forward([[row[prompt + step]] for row in rows], cache)
            for step in range(steps)
        ]
    expected = Scored.join([drive.expected.score(row)[prompt - 1 :] for row in rows])
    return np.concatenate(np.concatenate(found, axis=1)), expected


def rewind(drive: Drive) -> Pair:
    """Tokens that prove wrong are taken back, again and again, down to the last position the
    reserve allows.
    """
    tokens, sizes = drive.sequence, drive.sizes
    count = min(min(sizes.window, RESERVE) + 1, sizes.longest - len(tokens))  # wrong ones
    reserve = max(0, count - 1)
    stride, found, kept = max(1, sizes.window // 2), [], []
    with drive.session.new_cache(1, len(tokens) + count, reserve=reserve) as cache:
        for begin in range(0, len(tokens), stride):
            piece = tokens[begin : begin + stride]
            found.append(drive.session.forward([piece], cache)[0])
            kept.append(begin + len(piece) - 1)
            # the last call begins `reserve` after the right ones
            for wrong in drive.expected.draw(count):
                drive.session.forward([[wrong]], cache)
            cache.rewind([begin + len(piece)])
    return np.concatenate(found), drive.expected.score(tokens)[kept]


def empty_past(drive: Drive) -> Pair:
    """The smallest call: one token, nothing cached."""
    token = drive.sequence[:1]
    with drive.session.new_cache(1, 1) as cache:
        return drive.session.forward([token], cache)[0], drive.expected.score(token)


def last_of(length: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs `length` tokens in one call and compares the last positions."""
    positions = np.arange(max(0, length - LAST), length)

    def run(drive: Drive) -> Pair:
        tokens = drive.expected.tokens(length)
        with drive.session.new_cache(1, length) as cache:
            found = drive.session.forward([tokens], cache, logit_positions=[positions])[0]
        return found, drive.expected.score(tokens)[positions]

    return run
