"""Grammars: llguidance's view of one tokenizer, and the grammars compiled for it.

V vocabulary of the model, which is often padded beyond the tokenizer's.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple
from functools import cached_property
from typing import Any, Generic, TypeVar

import llguidance
import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.rust_panics import foreign_errors
from gptoss_onnx.serving.constraints.grammar_process import GrammarProcess
from gptoss_onnx.serving.constraints.json_grammar import json_grammar, pattern_grammars
from gptoss_onnx.serving.constraints.schemas import JsonSchema
from gptoss_onnx.serving.constraints.text_states import one_line

KEPT = 1_000_000  # characters of grammars kept compiled; agents send the same tools every time
# what llguidance says of keywords that it leaves out where a schema is lenient
_LEFT_OUT = ("Unimplemented keys", "Unknown format", "oneOf")
_Value = TypeVar("_Value")
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 100_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}


class Grammars:
    """Compiles grammars for one tokenizer and keeps the latest of them; any thread may ask.

    Args:
        tokenizer: of the package.
        vocab: V of the model's logits.
        stop_tokens: ids that end an answer, beside harmony's.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, stop_tokens: Sequence[int]) -> None:
        self.tokenizer, self.vocab = tokenizer, vocab
        self.stop_tokens = tuple(token for token in stop_tokens if 0 <= token < vocab)
        self._process = GrammarProcess()
        self._reading = threading.Lock()
        self._compiled: _Latest[llguidance.LLMatcher] = _Latest(KEPT)
        self._tried: _Latest[bool] = _Latest(KEPT)

    def prepare(self) -> None:
        """Read the tokenizer; raises PackageError where llguidance cannot, and for control tokens
        that the model does not know.
        """
        harmony = self.tokenizer.harmony
        controls = () if harmony is None else astuple(harmony)
        largest = max((token for token in controls if token is not None), default=0)
        if largest >= self.vocab:
            raise PackageError(
                f"tokenizer.json: found the control token {largest}, expected less than the "
                f"model's vocabulary, {self.vocab}; export the package again"
            )
        with self._reading:
            self.tokens  # noqa: B018 - read at first use
            self.is_text  # noqa: B018

    @cached_property
    def tokens(self) -> llguidance.LLTokenizer:
        """The tokenizer as llguidance reads it, which takes two seconds for that of gpt-oss.

        Raises PackageError where it cannot.
        """
        advice = "export the package again with a byte-level tokenizer"
        with foreign_errors("tokenizer.json: cannot be constrained", advice, PackageError):
            return llguidance.LLTokenizer(self.tokenizer.definition)

    @cached_property
    def is_text(self) -> NDArray[np.bool_]:
        """Whether a token is text rather than a control token or none at all, bool (V)."""
        is_text = np.zeros(self.vocab, dtype=np.bool_)
        ids = np.array(self.tokenizer.text_tokens)
        is_text[ids[ids < self.vocab]] = True
        return is_text

    def of_schema(self, schema: JsonSchema) -> llguidance.LLMatcher:
        """Return the matcher of the JSON texts that a schema allows, at their beginning. It is
        shared: copy it, never advance it.

        Raises InputError for a schema that cannot be enforced.
        """
        self.try_schema(schema)
        return self.of(json_grammar(schema), schema.where)

    def try_schema(self, schema: JsonSchema) -> None:
        """Raise InputError for a schema that cannot be enforced, or takes too much to compile."""
        with foreign_errors(f"{schema.where}: cannot be enforced", "correct it", InputError):
            grammar = json_grammar(schema)
            if self._tried.get(grammar):
                return
            grammars = [grammar, *pattern_grammars(schema)]
        problem = self._process.problem(grammars, _LIMITS, schema.where)
        if problem:
            reason = one_line(problem).partition(" Enable ")[0]  # an option of llguidance's own
            advice = '; "strict": false enforces the rest' if reason.startswith(_LEFT_OUT) else ""
            raise InputError(f"{schema.where}: cannot be enforced ({reason}){advice}")
        self._tried.put(grammar, True)

    def of(self, grammar: str, where: str) -> llguidance.LLMatcher:
        """Return the matcher of a grammar whose schemas have been tried, as `of_schema` does."""
        matcher = self._compiled.get(grammar)
        if matcher is None:
            limits = llguidance.LLParserLimits(**_LIMITS)
            with foreign_errors(f"{where}: cannot be enforced", "simplify it", InputError):
                matcher = llguidance.LLMatcher(self.tokens, grammar, log_level=0, limits=limits)
            if matcher.is_error():
                raise InputError(f"{where}: cannot be enforced ({one_line(matcher.get_error())})")
            self._compiled.put(grammar, matcher)
        return matcher


class _Latest(Generic[_Value]):
    """Values by texts, those put in or looked at last; any thread may ask.

    A compiled grammar takes up to 150 times the memory of its text, so texts are counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size, self._lock = limit, 0, threading.Lock()
        self._values: OrderedDict[str, _Value] = OrderedDict()

    def get(self, key: str) -> _Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: _Value) -> None:
        with self._lock:
            self._size += 0 if key in self._values else len(key)
            self._values[key] = value
            while self._size > self._limit:
                self._size -= len(self._values.popitem(last=False)[0])
