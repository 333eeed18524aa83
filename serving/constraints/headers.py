"""HeaderTree: the headers that a model of gpt-oss may write, as a tree of tokens.

Headers are spelled as the format's own renderer spells them, part by part, which is how models were
trained to write them. So what was written need not be parsed: each leaf of the tree says what its
header opens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.harmony_tokens import HarmonyTokens

Kind = Literal["thoughts", "preamble", "answer", "call", "builtin"]
FUNCTIONS = "functions."  # what the recipient of a function's call begins with
_Encode = Callable[[str], Sequence[int]]
_Piece = str | int  # a text or a control token


@dataclass(frozen=True)
class Opening:
    """What a header opens.

    Attributes:
        kind: of the text that follows.
        name: of the function that is called; empty for all but calls.
    """

    kind: Kind
    name: str = ""


@dataclass
class HeaderTree:
    """A place within the headers: where each token that may come next leads to."""

    following: dict[int, "HeaderTree | Opening"] = field(default_factory=dict)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V) but for the tokens that may come next."""
        ids = list(self.following)
        kept = logits[ids]
        logits.fill(-np.inf)
        logits[ids] = kept

    def add(self, tokens: Sequence[int], opening: Opening) -> None:
        """Add a header; the last token of each is `<|message|>`, which no other place holds."""
        place = self
        for token in tokens[:-1]:
            inner = place.following.setdefault(token, HeaderTree())
            assert isinstance(inner, HeaderTree)
            place = inner
        place.following[tokens[-1]] = opening


class HeaderSpeller:
    """Makes the trees of one tokenizer.

    Args:
        tokens: its control tokens.
        encode: returns the ids of a text without control tokens.
    """

    def __init__(self, tokens: HarmonyTokens, encode: _Encode) -> None:
        self._tokens, self._encode = tokens, encode
        self._seen: dict[str, tuple[int, ...]] = {}

    def tree(self, openings: Iterable[Opening]) -> HeaderTree:
        """Return the tree of all headers that open one of these, from `<|start|>` on."""
        tree = HeaderTree()
        begin = (self._tokens.start, "assistant")
        for opening in openings:
            for pieces in self._spellings(opening):
                tree.add(self._ids((*begin, *pieces, self._tokens.message)), opening)
        return tree

    def _spellings(self, opening: Opening) -> Iterator[tuple[_Piece, ...]]:
        """Yield the ways to write a header that models know, from behind the role on."""
        channel = self._tokens.channel
        if opening.kind == "thoughts":
            yield channel, "analysis"
        elif opening.kind == "preamble":
            yield channel, "commentary"
        elif opening.kind == "answer":
            yield from ((channel, "final", *type_) for type_ in self._types())
        else:
            recipient = opening.name if opening.kind == "builtin" else FUNCTIONS + opening.name
            types = [*self._types(), (" code",)] if opening.kind == "builtin" else self._types()
            for said, type_ in product(("commentary", "analysis"), types):
                yield channel, said, f" to={recipient}", *type_
                yield f" to={recipient}", channel, said, *type_

    def _types(self) -> list[tuple[_Piece, ...]]:
        """Return the ways to say that the text is JSON, silence among them."""
        constrain = self._tokens.constrain
        types: list[tuple[_Piece, ...]] = [(), (" json",)]
        if constrain is not None:
            types += [(" ", constrain, "json"), (constrain, "json")]
        return types

    def _ids(self, pieces: Iterable[_Piece]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
                continue
            if piece not in self._seen:
                self._seen[piece] = tuple(self._encode(piece))
            ids += self._seen[piece]
        return ids
