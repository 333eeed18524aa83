"""HarmonyConstraint: what a model of gpt-oss may say next, message by message.

V vocabulary of the model.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.harmony_tokens import HarmonyTokens
from gptoss_onnx.serving.constraints.grammars import Grammars
from gptoss_onnx.serving.constraints.headers import HeaderSpeller, HeaderTree, Opening
from gptoss_onnx.serving.constraints.schemas import JsonSchema
from gptoss_onnx.serving.constraints.text_states import EnforcedText, EnforcementError, FreeText
from gptoss_onnx.serving.constraints.wanted import Wanted


class _Text(Protocol):
    """What may come next within a text."""

    ends: frozenset[int]

    def mask(self, logits: NDArray[np.float32]) -> None: ...

    def accept(self, token: int) -> None: ...


class HarmonyConstraint:
    """Lets a model think as it likes, and enforces its answer and its calls.

    Headers are chosen among those of the request (`HeaderTree`), texts are free or of a grammar,
    and each text ends with the tokens that end its kind. Where something is enforced, thoughts come
    at most once, so that a model comes to its point.

    Args:
        grammars: of the server.
        wanted: what the request wants.
        builtin: recipients of built-in tools, such as `browser.search`, which the model may call
            unless it must call a function or nothing.
        prompt: the tokens that the model continues, perhaps in the middle of a message.

    Raises InputError for schemas that cannot be enforced, and for a prompt that begins a message
    which the request forbids.
    """

    def __init__(
        self,
        grammars: Grammars,
        wanted: Wanted,
        builtin: Sequence[str],
        prompt: Sequence[int],
    ) -> None:
        tokens = grammars.tokenizer.harmony
        assert tokens is not None
        self._grammars, self._wanted = grammars, wanted
        self._builtin = () if wanted.has_tools and not wanted.calls else tuple(builtin)
        self._tokens: HarmonyTokens = tokens
        self._speller = HeaderSpeller(tokens, grammars.tokenizer.encode_plain)
        self._calls = 0
        self._has_thought = False
        # Compiled now: a request is refused before it runs, and no step waits for it.
        self._matchers = {schema: grammars.of_schema(schema) for schema in wanted.schemas}
        self._opening: Opening | None = None  # of the text, while one is open
        self._place: HeaderTree = self._headers()
        self._text: _Text | None = None
        self._continue(prompt)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V) where a token is not allowed next; raises EnforcementError
        where none is.
        """
        (self._text or self._place).mask(logits)

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen; raises EnforcementError where it is not
        allowed.
        """
        if self._text is None:
            following = self._place.following.get(token)
            if following is None:
                raise EnforcementError(f"constraint: found token {token} within a header")
            if isinstance(following, HeaderTree):
                self._place = following
            else:
                self._opening, self._text = following, self._open(following)
        elif token in self._text.ends:
            assert self._opening is not None
            self._calls += self._opening.kind == "call"
            self._has_thought = self._has_thought or self._opening.kind == "thoughts"
            self._opening = self._text = None
            self._place = self._headers()
        else:
            self._text.accept(token)

    def _continue(self, prompt: Sequence[int]) -> None:
        """Go through the message that the prompt leaves open, if any."""
        ids = [int(token) for token in prompt]
        tokens = self._tokens
        ends = {tokens.end, tokens.return_, tokens.call}
        begin = next((i for i in reversed(range(len(ids))) if ids[i] == tokens.start), len(ids))
        if ends.intersection(ids[begin:]):
            return
        try:
            for token in ids[begin:]:
                self.accept(token)
        except EnforcementError as error:
            raise InputError(
                "prompt: it begins a message that response_format or tool_choice forbids"
            ) from error

    def _headers(self) -> HeaderTree:
        """Return the headers that may come next."""
        wanted = self._wanted
        owes_call = wanted.must_call and not self._calls
        is_enforced = owes_call or wanted.answer is not None
        openings = []
        if not (is_enforced and self._has_thought):
            openings.append(Opening("thoughts"))
        if not owes_call:
            openings.append(Opening("answer"))
            openings += [Opening("builtin", name) for name in self._builtin]
        if not is_enforced:
            openings.append(Opening("preamble"))
        if wanted.several_calls or not self._calls:
            openings += [Opening("call", name) for name in wanted.calls]
        return self._speller.tree(openings)

    def _open(self, opening: Opening) -> _Text:
        """Return what a text of this kind may say."""
        wanted, tokens = self._wanted, self._tokens
        if opening.kind in ("thoughts", "preamble"):
            return self._free(tokens.end)
        if opening.kind == "answer":
            both = (tokens.return_, tokens.end)
            return self._free(*both) if wanted.answer is None else self._of(wanted.answer, *both)
        end = tokens.return_ if tokens.call is None else tokens.call
        if opening.kind == "builtin":
            return self._free(end)
        # Behind `<|end|>` the model may go on, to its next call.
        more = tokens.end if wanted.several_calls or end is None else None
        return self._of(wanted.calls[opening.name], end, more)

    def _free(self, *ends: int | None) -> FreeText:
        return FreeText(self._grammars.is_text, _present(ends))

    def _of(self, schema: JsonSchema, *ends: int | None) -> EnforcedText:
        grammars = self._grammars
        return EnforcedText(self._matchers[schema], grammars.tokens, _present(ends))


def _present(ends: Sequence[int | None]) -> list[int]:
    return [end for end in ends if end is not None]
