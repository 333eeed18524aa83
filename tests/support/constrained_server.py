"""What a server has of a package, and a model that knows nothing instead of its weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptoss_onnx.runtime import HarmonyMessage, HarmonyParser, Tokenizer
from gptoss_onnx.runtime.engine.request import Constraint
from gptoss_onnx.serving.constraints import ConstraintMaker
from support.plain_tokenizer import END
from support.random_model import RandomModel

PADDED = 64  # logits beyond the tokenizer's ids, as published models have them


class ConstrainedServer:
    """Makes constraints for one tokenizer and answers at random within them.

    Attributes:
        vocab: V, more than the tokenizer has.
        prompt: of a conversation whose answer comes next.
        stops: what ends an answer.
    """

    def __init__(self, folder: Path, vocab: int | None = None) -> None:
        self.tokenizer = Tokenizer.open(folder)
        ids = [*self.tokenizer.text_tokens, *self.tokenizer.special_tokens.values()]
        self.vocab = max(ids) + 1 + PADDED if vocab is None else vocab
        harmony = self.tokenizer.harmony
        if harmony is None:
            self.stops = {self.tokenizer.special_tokens[END]}
            self.prompt = self.tokenizer.encode("<|im_start|>assistant\n")
            thought = self.tokenizer.added_tokens.get("</think>")
            ends = {thought} - {None}
        else:
            self.stops = {harmony.return_, harmony.call} - {None}
            self.prompt = self.tokenizer.encode(
                "<|start|>user<|message|>x<|end|><|start|>assistant"
            )
            ends = {harmony.end}
        self.maker = ConstraintMaker(self.tokenizer, self.vocab, tuple(self.stops))
        wishes = dict.fromkeys(self.stops, 3.0) | dict.fromkeys(ends, 2.0)
        if "<tool_call>" in self.tokenizer.added_tokens:
            wishes[self.tokenizer.added_tokens["<tool_call>"]] = 3.0
        self.model = RandomModel(self.tokenizer, self.vocab, wishes)

    def constraint(
        self,
        schema: dict[str, Any] | None = None,
        tools: Sequence[Any] | None = None,
        choice: Any = None,
        parallel: bool = True,
        prompt: str | None = None,
    ) -> Constraint | None:
        """Return the constraint of a request; a schema is that of its answer."""
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        ids = self.prompt if prompt is None else self.tokenizer.encode(prompt, False)
        return self.maker.make(wanted if schema is not None else None, tools, choice, parallel, ids)

    def say(self, constraint: Constraint | None, seed: int) -> list[int]:
        """Return a random answer within a constraint."""
        return self.model.say(constraint, seed, self.stops)

    def messages(self, said: Sequence[int]) -> tuple[HarmonyMessage, ...]:
        """Return what a model of gpt-oss has said."""
        parser = HarmonyParser(self.tokenizer, self.prompt)
        for token in said:
            parser.push(token)
        parser.finish()
        return parser.messages

    def after_thoughts(self, said: Sequence[int]) -> str:
        """Return what another model has said, after its thoughts."""
        thought = self.tokenizer.added_tokens.get("</think>")
        begin = said.index(thought) + 1 if thought in said else 0
        return self.tokenizer.decode(said[begin:])

    def texts(self, said: Sequence[int]) -> list[str]:
        """Return the texts of an answer that was held to a schema, its calls and thoughts aside."""
        if self.tokenizer.harmony is None:
            return [self.after_thoughts(said)]
        return [message.text for message in self.messages(said) if message.kind == "content"]
