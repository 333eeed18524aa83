"""What a generation prints: text or ids while they come, thoughts apart from them, and how it
went.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO

import click

from gptoss_onnx.json_text import printable

if TYPE_CHECKING:
    from gptoss_onnx.runtime import Generation, HarmonyDelta, Speculated, TextGeneration

_LAYOUT = re.compile("([\n\t])")


class Writer:
    """Prints pieces as they come: the text to stdout, and what is not for the user, dimmed, to
    stderr.

    A terminal gets control characters escaped; a file or a pipe gets what the model said.
    """

    def __init__(self, *, quiet: bool = False, show_reasoning: bool = True) -> None:
        from gptoss_onnx.runtime.harmony_message import JoinedText

        self._quiet, self._show_reasoning = quiet, show_reasoning
        self._open: TextIO | None = None  # the stream whose line has not ended
        self._message = -1
        self._plain: list[str] = []
        self._answer, self._thoughts = JoinedText(), JoinedText()

    @property
    def text(self) -> str:
        """The text or the answer so far, without thoughts."""
        return "".join(self._plain) or str(self._answer)

    @property
    def reasoning(self) -> str:
        """The thoughts so far."""
        return str(self._thoughts)

    def token(self, token: int) -> None:
        """Print an id."""
        self._print(f",{token}" if self._open else str(token), sys.stdout)

    def piece(self, piece: "str | HarmonyDelta") -> None:
        """Print a piece of a text or of an answer."""
        if isinstance(piece, str):
            self._plain.append(piece)
            self._print(piece, sys.stdout)
        elif piece.kind == "content":
            if self._open is sys.stderr:
                self._end_line()
            self._print(self._answer.add(piece), sys.stdout)
        else:
            if piece.kind == "reasoning":
                self._thoughts.add(piece)
            self._aside(piece)

    def finish(self) -> None:
        """End the line."""
        self._end_line()

    def _aside(self, piece: "HarmonyDelta") -> None:
        """Print thoughts, calls of tools and other speakers."""
        if piece.kind == "reasoning" and not self._show_reasoning:
            return
        if piece.message != self._message:
            self._message = piece.message
            self._end_line()
            if piece.kind != "reasoning":
                who = piece.recipient if piece.kind == "tool_call" else piece.role
                self._print(f"[{printable(str(who))}] ", sys.stderr)
        self._print(piece.text, sys.stderr)

    def _end_line(self) -> None:
        if self._open is not None:
            self._print("\n", self._open)

    def _print(self, text: str, stream: TextIO) -> None:
        if not text or self._quiet:
            return
        self._open = None if text.endswith("\n") else stream
        if stream.isatty():
            text = "".join(
                part if part in "\n\t" else printable(part) for part in _LAYOUT.split(text)
            )
            if stream is sys.stderr:
                text = click.style(text, dim=True)
        stream.write(text)  # not click.echo, which takes terminal codes out of what goes to a file
        stream.flush()


@dataclass(frozen=True)
class Answer:
    """How a finished generation went; times in seconds.

    Attributes:
        cached_tokens: those of the prompt that came from a file; None where there is no file.
        speculated: what came of guessing; None where nothing was to be guessed.
    """

    prompt_tokens: int
    tokens: list[int]
    finish_reason: str | None
    load_seconds: float
    prefill_seconds: float
    decode_seconds: float
    cached_tokens: int | None = None
    speculated: "Speculated | None" = None

    @classmethod
    def of(
        cls,
        generation: "Generation[int] | TextGeneration[Any]",
        prompt_tokens: int,
        load_seconds: float,
    ) -> Self:
        """Take the numbers of a generation that has ended."""
        tokens = generation.tokens
        return cls(
            prompt_tokens,
            [token for row in tokens for token in (row if isinstance(row, list) else [row])],
            generation.finish_reason,
            load_seconds,
            generation.prefill_seconds,
            generation.decode_seconds,
            speculated=generation.speculated,
        )

    @property
    def prefill_rate(self) -> float | None:
        """Prompt tokens a second, of those that were run."""
        run = self.prompt_tokens - (self.cached_tokens or 0)
        return run / self.prefill_seconds if self.prefill_seconds else None

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first, which prefill gives; None for a single token."""
        later = len(self.tokens) - 1
        return later / self.decode_seconds if later > 0 and self.decode_seconds else None

    def to_json(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document that `generate --json` prints; `said` is the text and what came apart
        from it.
        """
        return {
            "tokens": self.tokens,
            **said,
            "finish_reason": self.finish_reason,
            "timings": {
                "load_seconds": self.load_seconds,
                "prompt_tokens": self.prompt_tokens,
                **({} if self.cached_tokens is None else {"cached_tokens": self.cached_tokens}),
                "prefill_seconds": self.prefill_seconds,
                "prefill_tokens_per_second": self.prefill_rate,
                "new_tokens": len(self.tokens),
                "decode_seconds": self.decode_seconds,
                "decode_tokens_per_second": self.decode_rate,
            },
            **({} if self.speculated is None else {"speculated": self.speculated._asdict()}),
        }

    def summary(self) -> str:
        """Return one line for people."""
        rates = (
            f"{count} {what} in {seconds:.2f} s" + (f" ({rate:.1f} tokens/s)" if rate else "")
            for count, what, seconds, rate in (
                (self.prompt_tokens, "prompt tokens", self.prefill_seconds, self.prefill_rate),
                (len(self.tokens), "new tokens", self.decode_seconds, self.decode_rate),
            )
        )
        parts = [
            f"finished: {self.finish_reason}",
            f"loaded in {self.load_seconds:.2f} s",
            *([f"{self.cached_tokens} prompt tokens from the file"] if self.cached_tokens else []),
            *rates,
            *([] if self.speculated is None else [_guessing(self.speculated)]),
        ]
        return "; ".join(parts)


def _guessing(speculated: "Speculated") -> str:
    right = f"{speculated.accepted} of {speculated.drafted} guessed tokens were right"
    return f"{right}, in {speculated.calls} calls"
