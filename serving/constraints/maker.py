"""ConstraintMaker: makes the constraint of each request of one server."""

from collections.abc import Sequence
from typing import Any

from gptoss_onnx.runtime.engine.request import Constraint
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.constraints.grammars import Grammars
from gptoss_onnx.serving.constraints.harmony_constraint import HarmonyConstraint
from gptoss_onnx.serving.constraints.plain_grammar import (
    CALL,
    CALL_END,
    THINK,
    THINK_END,
    Tags,
    plain_grammar,
)
from gptoss_onnx.serving.constraints.text_states import EnforcedText
from gptoss_onnx.serving.constraints.wanted import Wanted, read_wanted
from gptoss_onnx.serving.prompts.builtin_tools import builtin_namespaces

_TAGS = (THINK, THINK_END, CALL, CALL_END)
_PROMPT_END = 16  # last tokens of a prompt, where its template may have begun the model's thoughts


class ConstraintMaker:
    """Makes constraints for one tokenizer; one for a server, which any thread may use.

    llguidance reads the tokenizer at the first request that needs it; `prepare` does it earlier.

    Args:
        tokenizer: of the package.
        vocab: V of the model's logits, often more than the tokenizer has.
        stop_tokens: ids that end an answer where the tokenizer does not know harmony, such as the
            package's.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, stop_tokens: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, vocab, stop_tokens)

    def prepare(self) -> None:
        """Read the tokenizer; raises PackageError where nothing can be enforced with it."""
        self._grammars.prepare()

    def make(
        self,
        response_format: Any,
        tools: Sequence[Any] | None,
        tool_choice: Any,
        parallel_tool_calls: bool,
        prompt_tokens: Sequence[int],
        builtin: Sequence[str] = (),
    ) -> Constraint | None:
        """Return what holds one answer to what its request wants, or None where any answer will do.

        Compiling what was not compiled lately takes milliseconds, and for a hostile schema seconds:
        call it outside of an event loop. Each choice of a request needs one of its own.

        Args:
            response_format, tools, tool_choice, parallel_tool_calls: fields of the request, as
                `read_wanted` reads them.
            prompt_tokens: the prompt as the model gets it.
            builtin: names of built-in tools that the prompt tells of, such as `python`.

        Raises InputError in one line for what is wrong or cannot be enforced, and PackageError for
        a tokenizer that llguidance cannot read.
        """
        wanted = read_wanted(response_format, tools, tool_choice, parallel_tool_calls)
        if wanted.is_nothing:
            return None
        self._grammars.prepare()
        if self._tokenizer.harmony is not None:
            return HarmonyConstraint(self._grammars, wanted, _recipients(builtin), prompt_tokens)
        return self._plain(wanted, prompt_tokens)

    def _plain(self, wanted: Wanted, prompt: Sequence[int]) -> EnforcedText:
        grammars = self._grammars
        for schema in wanted.schemas:
            grammars.try_schema(schema)
        matcher = grammars.of(plain_grammar(wanted, self._tags(prompt)), "response_format or tools")
        return EnforcedText(matcher, grammars.tokens, grammars.stop_tokens)

    def _tags(self, prompt: Sequence[int]) -> Tags:
        tokens, ids = self._grammars.tokens, self._tokenizer.added_tokens
        special = {
            tag: ids[tag] for tag in _TAGS if tag in ids and tokens.is_special_token(ids[tag])
        }
        end = self._tokenizer.decode(prompt[-_PROMPT_END:], skip_special_tokens=False)
        return Tags(special, THINK in ids and THINK_END in ids, end.rstrip().endswith(THINK))


def _recipients(builtin: Sequence[str]) -> list[str]:
    """Return whom a model calls to use built-in tools, such as `browser.search` and `python`."""
    return [
        f"{namespace.name}.{tool.name}" if tool else namespace.name
        for namespace in builtin_namespaces(builtin)
        for tool in namespace.tools or (None,)
    ]
