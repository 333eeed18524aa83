"""TextGeneration: the iterator behind `Session.stream_text`, text piece by piece, of a chat with
its channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import numpy as np

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.generation import Generation
from gptoss_onnx.runtime.generation_row import FinishReason
from gptoss_onnx.runtime.harmony import HarmonyParser
from gptoss_onnx.runtime.harmony_message import HarmonyDelta, HarmonyMessage
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.messages import Message
from gptoss_onnx.runtime.sampling import Sampling
from gptoss_onnx.runtime.speculation.speculation import Speculated, Speculation
from gptoss_onnx.runtime.stops import end_tokens, split_stops, warn_endless
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.runtime.text_stream import TextStream

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

TEXT_TOKENS = 256  # new tokens of a text where the caller names no number
CHAT_TOKENS = 4096  # of an answer in harmony, which begins with thoughts
Piece = TypeVar("Piece")
PieceOut = TypeVar("PieceOut", covariant=True)


@dataclass(frozen=True)
class Prompt:
    """The token ids that a model continues, and whether they are a chat that it answers."""

    ids: tuple[int, ...]
    is_chat: bool

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[int] | Sequence[Message],
        tokenizer: Tokenizer,
        variables: Mapping[str, Any] | None = None,
    ) -> Self:
        """Encode a text, or a conversation with the chat template; token ids stay. Raises
        InputError.
        """
        if isinstance(prompt, str):
            return cls(tuple(tokenizer.encode(prompt)), is_chat=False)
        if isinstance(prompt, np.ndarray):
            prompt = prompt.tolist()
        if (
            isinstance(prompt, Sequence)
            and prompt
            and all(isinstance(part, (int, np.integer)) for part in prompt)
        ):
            return cls(tuple(int(part) for part in prompt), is_chat=False)  # type: ignore[arg-type]  # just checked
        return cls(tuple(tokenizer.encode_chat(prompt, variables=variables)), is_chat=True)  # type: ignore[arg-type]  # refuses what is no message


class _Reader(Protocol[PieceOut]):
    """What turns tokens into pieces."""

    @property
    def stopped(self) -> bool:
        """Whether a stop text has appeared."""

    def push(self, token: int) -> Sequence[PieceOut]:
        """Take a token and return what is certain by now."""

    def finish(self) -> Sequence[PieceOut]:
        """Return what was held back."""


class TextGeneration(Closing, Iterator[Piece], Generic[Piece]):
    """Text as it is generated: pieces that are never empty and never hold half a character.

    Pieces of a prompt are `str`. Pieces of a chat are `HarmonyDelta`, whose `kind` tells thoughts
    from the answer; `str(piece)` is the text of either. A context manager; leaving it early frees
    the cache.

    Attributes:
        prompt_tokens: how many tokens the prompt has.
        tokens: the token ids generated so far.
    """

    def __init__(
        self, generation: Generation[int], reader: _Reader[Piece], prompt_tokens: int
    ) -> None:
        self._generation, self._reader = generation, reader
        self._pieces: list[Piece] = []  # certain, and not given yet
        self._finish_reason: FinishReason | None = None
        self._ended = False
        self.prompt_tokens = prompt_tokens
        self.tokens: list[int] = []

    @property
    def finish_reason(self) -> FinishReason | None:
        """`stop` for an end the model or a stop text made, `length` for one by the limit; None
        while it goes on.
        """
        return self._finish_reason

    @property
    def messages(self) -> tuple[HarmonyMessage, ...]:
        """The messages of a chat so far, see `HarmonyParser`; empty where the model does not speak
        harmony.
        """
        return self._reader.messages if isinstance(self._reader, HarmonyParser) else ()

    @property
    def prefill_seconds(self) -> float:
        """Seconds of running the prompt."""
        return self._generation.prefill_seconds

    @property
    def decode_seconds(self) -> float:
        """Seconds of running and choosing the tokens."""
        return self._generation.decode_seconds

    @property
    def speculated(self) -> Speculated | None:
        """What came of guessing; see `Generation`."""
        return self._generation.speculated

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        while not self._pieces:
            if self._ended:
                raise StopIteration
            self._advance()
        return self._pieces.pop(0)

    def close(self) -> None:
        """End the iteration and free a temporary cache. The end of the iteration calls it too."""
        self._ended = True
        self._generation.close()

    def _advance(self) -> None:
        token = next(self._generation, None)
        if token is None:
            self._end(self._generation.finish_reason)
            return
        self.tokens.append(token)
        self._pieces += self._reader.push(token)
        is_answered = isinstance(self._reader, HarmonyParser) and self._reader.answered
        if self._reader.stopped or is_answered:
            self._end("stop")

    def _end(self, reason: FinishReason | None) -> None:
        self._finish_reason = reason
        self._pieces += self._reader.finish()
        self.close()


def stream_text(
    session: "Session",
    prompt: Prompt,
    tokenizer: Tokenizer,
    sampling: Sampling,
    max_new_tokens: int | None = None,
    cache: KVCache | None = None,
    *,
    text_tokens: int = TEXT_TOKENS,
    cached: int = 0,
    speculate: int | Speculation = 0,
    draft: "Session | None" = None,
) -> TextGeneration[Any]:
    """Return the generation of a text or an answer; see `Session.stream_text`.

    Without `max_new_tokens` there are at most `text_tokens` new ones, and `CHAT_TOKENS` where the
    model thinks before it answers. The first `cached` tokens of the prompt, fewer than all, are in
    the cache already.
    """
    check_prompt(prompt, session.vocab, session.manifest.longest)
    stop_ids, texts = split_stops(sampling.stop, tokenizer.special_tokens)
    ends = sampling.stop_tokens
    if ends is None:
        ends = end_tokens(session.package, tokenizer, prompt.is_chat, session.vocab)
    ends += stop_ids
    if not ends and not texts and sampling.stop_tokens is None and max_new_tokens is None:
        warn_endless(session.package.folder)
    reader: _Reader[Any]
    if prompt.is_chat and tokenizer.harmony is not None:
        reader = HarmonyParser(tokenizer, prompt.ids, texts)
    elif prompt.is_chat:
        reader = _ChatReader(tokenizer, texts)
    else:
        reader = _TextReader(tokenizer, texts)
    if max_new_tokens is None:
        is_thinking = isinstance(reader, HarmonyParser) and reader.in_header
        max_new_tokens = CHAT_TOKENS if is_thinking else text_tokens
    # Stop texts are the reader's: in a chat they must not be looked for in thoughts and headers.
    settings = replace(sampling, stop=(), stop_tokens=ends)
    generation = session.generate(
        prompt.ids[cached:],
        settings,
        max_new_tokens=max_new_tokens,
        cache=cache,
        speculate=speculate,
        draft=draft,
    )
    return TextGeneration(generation, reader, len(prompt.ids))


def check_prompt(prompt: Prompt, vocab: int, longest: int) -> None:
    """Refuse a prompt that a model cannot take, before anything of the model is loaded."""
    if not prompt.ids:
        raise InputError("prompt: found no token in it, expected at least one")
    for place, token in enumerate(prompt.ids):
        if not 0 <= token < vocab:
            raise InputError(
                f"prompt: token {place} is {token}, expected 0 to {vocab - 1} (the vocabulary)"
            )
    if len(prompt.ids) > longest:
        raise InputError(
            f"prompt: found {len(prompt.ids)} tokens, expected at most {longest}, the longest this "
            "model takes"
        )


class _TextReader:
    """Pieces of a text."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._stream = TextStream(tokenizer, stop)

    @property
    def stopped(self) -> bool:
        return self._stream.stopped

    def push(self, token: int) -> list[str]:
        return [text for text in (self._stream.push(token),) if text]

    def finish(self) -> list[str]:
        return [text for text in (self._stream.finish(),) if text]


class _ChatReader:
    """Pieces of an answer by a model that does not speak harmony: all of it is content."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._reader = _TextReader(tokenizer, stop)

    @property
    def stopped(self) -> bool:
        return self._reader.stopped

    def push(self, token: int) -> list[HarmonyDelta]:
        return [HarmonyDelta(text) for text in self._reader.push(token)]

    def finish(self) -> list[HarmonyDelta]:
        return [HarmonyDelta(text) for text in self._reader.finish()]
