"""AnswerReader: the answer of a model, token by token, whatever it says."""

from collections.abc import Sequence
from typing import Protocol

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.answers.answer import Answer, AnswerDelta
from gptoss_onnx.serving.answers.harmony_answer import HarmonySource
from gptoss_onnx.serving.answers.text_answer import TextSource
from gptoss_onnx.serving.answers.tool_names import ToolNames


class Source(Protocol):
    """What reads the tokens of one kind of model."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return the pieces that are certain by now."""

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back; the tokens have come to their end."""

    def answer(self) -> Answer:
        """Return the answer as far as it has come."""


class AnswerReader:
    """Reads one answer. It raises nothing, and what a token costs does not grow with the answer.

    Attributes:
        problem: what the package's tokenizer failed with, which ends the answer; mostly None.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._is_finished = False
        self.problem: GptOssError | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is complete, or a stop text has come; further tokens are not read."""
        return self._is_finished or self._source.done

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return the pieces that are certain by now, mostly one or none."""
        if self.done:
            return []
        try:
            return self._source.push(token)
        except GptOssError as problem:
            self.problem, self._is_finished = problem, True
            return []

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back; the tokens have come to their end. Once is enough."""
        if self._is_finished:
            return []
        self._is_finished = True
        try:
            return self._source.finish()
        except GptOssError as problem:
            self.problem = problem
            return []

    def answer(self) -> Answer:
        """Return the answer as far as it has come: the pieces that were given, put together."""
        return self._source.answer()


def answer_reader(
    tokenizer: Tokenizer,
    prompt_tokens: Sequence[int],
    stop: Sequence[str] = (),
    tool_names: Sequence[str] = (),
) -> AnswerReader:
    """Return the reader of what a model says after a prompt.

    Args:
        tokenizer: the package's.
        prompt_tokens: the prompt; templates begin the answer's header, or its thoughts, there.
        stop: texts that end the answer before them. They are looked for in the answer to the user
            alone. A special token's spelling belongs into the sampling's stop tokens instead.
        tool_names: the tools that the request offered. A model without harmony calls only where
            there are some.

    Raises InputError for stops that are no sequence of texts.
    """
    names = ToolNames(tool_names)
    if tokenizer.harmony is not None:
        return AnswerReader(HarmonySource(tokenizer, prompt_tokens, stop, names))
    return AnswerReader(
        TextSource(tokenizer, prompt_tokens, stop, names, has_tools=bool(tool_names))
    )
