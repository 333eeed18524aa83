"""What a generation prints: text or ids while they come, and how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from gptoss_onnx.runtime import Generation, Tokenizer


class Writer:
    """Prints a sequence to stdout token by token: its text, or its ids separated by commas without a tokenizer.

    Attributes:
        text: what was decoded so far; None without a tokenizer.
    """

    def __init__(self, tokenizer: "Tokenizer | None", stop: Sequence[str], quiet: bool) -> None:
        self._stream = None if tokenizer is None else tokenizer.stream(stop)
        self._quiet = quiet
        self._first = True
        self._line_ended = True
        self.text = None if tokenizer is None else ""

    def push(self, token: int) -> None:
        """Print what this token makes certain."""
        if self._stream is None:
            self._print(str(token) if self._first else f",{token}")
        else:
            self._add(self._stream.push(token))
        self._first = False

    def finish(self) -> None:
        """Print what was held back, and end the line."""
        if self._stream is not None:
            self._add(self._stream.finish())
        if not self._line_ended:
            self._print("\n")

    def _add(self, text: str) -> None:
        self.text = (self.text or "") + text
        self._print(text)

    def _print(self, text: str) -> None:
        if text and not self._quiet:
            self._line_ended = text.endswith("\n")
            click.echo(text, nl=False)  # flushes


@dataclass(frozen=True)
class Answer:
    """How a finished generation went; times in seconds."""

    prompt_tokens: int
    tokens: list[int]
    finish_reason: str | None
    load_seconds: float
    prefill_seconds: float
    decode_seconds: float

    @classmethod
    def of(cls, generation: "Generation[int]", prompt_tokens: int, load_seconds: float) -> Self:
        """Take the numbers of a generation that has ended."""
        return cls(
            prompt_tokens,
            generation.tokens[0],
            generation.finish_reason,
            load_seconds,
            generation.prefill_seconds,
            generation.decode_seconds,
        )

    @property
    def prefill_rate(self) -> float | None:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else None

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first, which prefill gives; None for a single token."""
        later = len(self.tokens) - 1
        return later / self.decode_seconds if later > 0 and self.decode_seconds else None

    def to_json(self, text: str | None) -> dict[str, Any]:
        """Return the document that `generate --json` prints."""
        return {
            "tokens": self.tokens,
            "text": text,
            "finish_reason": self.finish_reason,
            "timings": {
                "load_seconds": self.load_seconds,
                "prompt_tokens": self.prompt_tokens,
                "prefill_seconds": self.prefill_seconds,
                "prefill_tokens_per_second": self.prefill_rate,
                "new_tokens": len(self.tokens),
                "decode_seconds": self.decode_seconds,
                "decode_tokens_per_second": self.decode_rate,
            },
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
        return f"finished: {self.finish_reason}; loaded in {self.load_seconds:.2f} s; " + "; ".join(rates)
