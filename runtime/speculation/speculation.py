"""Speculation: decoding in which each call of the model also checks guesses of the next tokens.

T tokens of a row, k guessed tokens of a call, V vocabulary.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer, shown
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.exclusive import Exclusive
from gptoss_onnx.runtime.generation_row import GenerationRow
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.speculation.draft_check import check_draft
from gptoss_onnx.runtime.speculation.draft_session import DraftSession
from gptoss_onnx.runtime.speculation.guess import Guess, Guesser
from gptoss_onnx.runtime.speculation.lookup import Lookup
from gptoss_onnx.runtime.speculation.pace import Pace

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

MOST_GUESSED = 64  # tokens of a call; their logits take 51 MB with a vocabulary of 200,000


class Speculated(NamedTuple):
    """What came of guessing: calls of the model after the prompt's, tokens guessed in them, and how
    many of these were said.
    """

    calls: int = 0
    drafted: int = 0
    accepted: int = 0


class Speculation(Closing):
    """Guesses for the rows of one session, one generation after the other; what it has learned of
    its guesses, and a draft's cache, stay. A context manager that frees that cache.

    A call of k + 1 tokens runs the last token and k guesses, and gives the logits after each. The
    row says what these say, for as long as they say what was guessed, and one token more. The cache
    is rewound to what was said. That goes back no further than the beginning of the call, so window
    layers need no reserve for it.

    Attributes:
        most: tokens that are guessed in a call at most; how many are, is measured: see `Pace`.
    """

    def __init__(self, session: "Session", most: int, draft: "Session | None" = None) -> None:
        """Take the most tokens of a call, 1 to 64, and the session of a smaller model of the same
        vocabulary; without one, guesses are looked up in the row's own tokens.

        Raises InputError: a package whose rows cannot be rewound, or a draft of another vocabulary.
        """
        self.most = integer("speculate", most, 1, MOST_GUESSED)
        _check_rewinds("speculate", session)
        if draft is not None:
            _check_rewinds("draft", _session("draft", draft))
            check_draft(session.package, draft.package)
        self._session = session
        self._guesser: Guesser = Lookup() if draft is None else DraftSession(draft, self.most)
        self._pace = Pace()
        self._use = Exclusive("speculation", "let one generation at a time use it")

    @classmethod
    def of(
        cls, session: "Session", speculate: "int | Speculation", draft: "Session | None"
    ) -> "Speculation | None":
        """Return what `Session.generate` was asked for; None for no speculation.

        Raises InputError.
        """
        if isinstance(speculate, Speculation):
            if draft is not None or speculate._session is not session:
                raise InputError(
                    "speculate: found a Speculation of another session or draft, expected one made "
                    "for this session, and draft left out"
                )
            return speculate
        most = integer("speculate", speculate, 0, MOST_GUESSED)
        if most == 0 and draft is not None:
            raise InputError("speculate: found 0 with a draft, expected the most tokens to draft")
        return None if most == 0 else cls(session, most, draft)

    def read(self, cache: KVCache) -> None:
        """Prepare for what follows the prompt that a cache holds in its only row."""
        with self._use:
            self._guesser.read(cache.row_tokens(0))

    def advance(self, row: GenerationRow, cache: KVCache, most: int) -> Speculated:
        """Run one call, after which the row has said at least one token more and `most` at most.

        `most` is at least 1. Afterwards the cache holds all that was said but the last token.
        Raises what `Session.forward` raises.
        """
        with self._use:
            return self._advance(row, cache, most)

    def close(self) -> None:
        """Free the draft's cache."""
        self._guesser.close()

    def _advance(self, row: GenerationRow, cache: KVCache, most: int) -> Speculated:
        held = int(cache.lengths[0])
        tokens = np.append(cache.row_tokens(0), row.tokens[-1])  # (T)
        begin = time.perf_counter()
        # a call that is cut in two could not be rewound to its beginning
        chances = self._guesser.look(tokens, min(self.most, most - 1, cache.chunk - 1))
        count = self._pace.length(chances, self._guesser.each, self._guesser.explores)
        guess = self._guesser.guess(count, row.sampler) if count else Guess()
        middle = time.perf_counter()
        positions = np.arange(count + 1)[None]
        tokens = np.append(tokens, np.array(guess.tokens, np.int64))  # (T + k)
        logits = self._session.forward(tokens[None, held:], cache, logit_positions=positions)
        end = time.perf_counter()
        said = row.follow(logits[0], tokens, guess)
        cache.rewind(held + len(said))
        self._guesser.learn(said)
        self._pace.record(count, len(said), middle - begin, end - middle)
        pairs = zip(said, guess.tokens, strict=False)
        return Speculated(1, count, sum(token == guessed for token, guessed in pairs))


def _session(name: str, value: object) -> "Session":
    from gptoss_onnx.runtime.session import Session  # which imports this

    if not isinstance(value, Session):
        raise InputError(f"{name}: found {shown(value)}, expected a Session or None")
    return value


def _check_rewinds(name: str, session: "Session") -> None:
    if not session.contract.layout.rewinds:
        raise InputError(
            f"{name}: found {session.package.folder}, whose rows cannot be rewound; export it with "
            "--target portable, or for --onnxruntime 1.32"
        )
