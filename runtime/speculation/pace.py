"""Pace: how many guessed tokens a call is worth, by what calls cost and how often guesses hit.

A call of k + 1 tokens, k of them guessed, takes longer than one of a single token: among other
things its tokens go to other experts. It says 1 + c1 + c1·c2 + … tokens, where c are the chances of
the guesses. The number is taken that says most tokens a second.

Estimates may be wrong, so there is an account of seconds. A call that guesses pays into it what its
tokens would have taken alone, and draws what it took. The account begins with a small credit, and
gets a small share of all seconds; nothing is guessed that it could not pay for. So guesses that all
fail lose no more than the credit, the share, and one call that took longer than expected.
"""

from collections.abc import Sequence

from gptoss_onnx.runtime.speculation.call_costs import CallCosts

_FIRST_CALLS = 2  # of one token each, which show what such a call takes
# In calls of one token:
_CREDIT = 2.0  # to begin with
_MOST = 16.0  # won time that can be lost again
_DRAFTED = 0.3  # what a drafted token takes, until one was measured
_SHARE = 0.02  # of all seconds
_WORTH = 1.03  # times the tokens a second: less is noise


class Pace:
    """Chooses how many tokens to guess, and keeps the account."""

    def __init__(self) -> None:
        self._costs = CallCosts()
        self._account: float | None = None  # seconds; None until a call of one token was measured

    def length(self, chances: Sequence[float], each: float | None, explores: bool) -> int:
        """Return how many of the next tokens to guess, which have these chances.

        `each` is what guessing one takes in seconds, None where it was not measured yet. With
        `explores` one is guessed where that is not worth it either, if the account can pay for it.
        """
        if self._costs.singles < _FIRST_CALLS:
            return 0
        one = self._costs.seconds(1)
        if self._account is None:
            self._account = _CREDIT * one
        if each is None:
            each = _DRAFTED * one
        best, best_rate, expected, chance = 0, _WORTH / one, 1.0, 1.0
        for count, next_chance in enumerate(chances, 1):
            seconds = self._costs.seconds(count + 1) + count * each
            if seconds - one > self._account:
                break
            chance *= next_chance
            expected += chance
            if expected / seconds > best_rate:
                best, best_rate = count, expected / seconds
            elif explores and best == 0:
                best = count
        return best

    def record(self, guessed: int, said: int, guessing: float, calling: float) -> None:
        """Take notice of a call: how many tokens were guessed and said, and the seconds of guessing
        and of the call.
        """
        self._costs.record(guessed + 1, calling)
        if self._account is None:
            return
        one = self._costs.seconds(1)
        self._account += _SHARE * (guessing + calling)
        if guessed > 0:
            self._account += said * one - guessing - calling
        self._account = min(self._account, _MOST * one)
