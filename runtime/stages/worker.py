"""The program of one stage: `python -m gptoss_onnx.runtime.stages.worker FD`.

It opens the package that the first message names, and then does what each message asks for, until
the other side ends. Its caches follow the session's: every message about a cache says how many
tokens each row holds there, and a cache that is ahead, since a later stage failed, goes back first.
"""

import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.calls import run_call
from gptoss_onnx.runtime.kernels import choose_kernels
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.open_graph import OpenGraph
from gptoss_onnx.runtime.package_check import open_package
from gptoss_onnx.runtime.request import GraphCall
from gptoss_onnx.runtime.row_state import RowState, on_host
from gptoss_onnx.runtime.runnable import RunnableCall
from gptoss_onnx.runtime.stages.messages import Message, MessageError, receive, send
from gptoss_onnx.runtime.target import CallInputs

_NOWHERE = np.zeros(0, np.intp)


def main(link: socket.socket) -> None:
    """Answer messages until there are no more."""
    try:
        stage, answer = None, receive(link)
        try:
            stage, answer = Stage.open(**answer.fields)
        except GptOssError as error:
            answer = _refusal(error)
        send(link, answer)
        while stage is not None:
            message = receive(link)
            try:
                answer = stage.answer(message)
            except GptOssError as error:
                answer = _refusal(error)
            send(link, answer)
    except MessageError:
        return  # nobody is there any more


def _refusal(error: GptOssError) -> Message:
    return Message({"error": type(error).__name__, "message": str(error)})


class Stage:
    """An open stage, and its caches by their numbers."""

    def __init__(self, graph: OpenGraph, longest: int) -> None:
        self._graph, self._longest = graph, longest
        self._caches: dict[int, KVCache] = {}

    @classmethod
    def open(
        cls, folder: str, kernels: str, activations: Any, threads: int | None
    ) -> tuple["Stage", Message]:
        """Return a package's stage, and the answer that says what runs it; raises as
        `Session.open`.
        """
        package = open_package(folder)
        choice = choose_kernels(package.manifest, kernels, activations, "cpu")
        graph = OpenGraph.load(package, choice, activations, "cpu", threads)
        return cls(graph, package.manifest.longest), Message({"kernels": choice.kernels})

    def answer(self, message: Message) -> Message:
        """Do what a message asks for; raises what that raises."""
        fields = dict(message.fields)
        for number in fields.pop("dropped"):
            self._close(number)
        what, number = fields.pop("what"), fields.pop("cache", None)
        if what == "new_cache":
            self._caches[number] = self._graph.new_cache(**fields)
        elif what == "check_weights":
            self._graph.check_weights()
        elif what != "drop":
            lengths, *arrays = message.arrays
            cache = self._aligned(number, lengths)
            return Message({}, self._answer_about(cache, what, arrays, **fields))
        return Message({})

    def _answer_about(
        self, cache: KVCache, what: str, arrays: Sequence[NDArray[Any]], **fields: Any
    ) -> tuple[NDArray[Any], ...]:
        """Do what a message asks for with a cache; returns the arrays to answer with."""
        if what == "run":
            return (self._run(cache, *arrays),)
        if what == "save_row":
            state = cache.save_row(**fields)
            return tuple(on_host(block) for pair in state.blocks for block in pair)
        if what == "load_row":
            cache.load_row(fields["row"], _state(cache, fields["floor"], *arrays))
        elif what == "move_row":
            cache.move_row(**fields)
        elif what == "fork":
            self._caches[fields["twin"]] = cache.fork()
        else:
            assert what == "grow", what
            cache.grow(**fields)
        return ()

    def _run(
        self,
        cache: KVCache,
        input_ids: NDArray[np.int64],
        new_lengths: NDArray[np.int64],
        logit_positions: NDArray[np.int64],
        hidden: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Run one call; returns logits (A, kept, V) or what the stage hands on (A·S, width)."""
        rows = len(input_ids)
        with cache.use:
            binding, part = self._graph.binding(cache, rows), cache.part(rows)
            part.check_call(new_lengths, self._longest)
            call = GraphCall(input_ids, new_lengths, logit_positions, _NOWHERE, _NOWHERE, _NOWHERE)
            return run_call(_StageCall(binding, hidden), part, call)

    def _aligned(self, number: int, lengths: NDArray[np.int64]) -> KVCache:
        """Return a cache, its rows as long as the session's."""
        cache = self._caches[number]
        # Also where it is empty: it forgets what damaged it.
        if (cache.lengths != lengths).any() or not lengths.any():
            cache.rewind(lengths)
        return cache

    def _close(self, number: int) -> None:
        cache = self._caches.pop(number, None)
        if cache is not None:
            cache.close()


def _state(
    cache: KVCache, floor: int, tokens: NDArray[np.int64], *blocks: NDArray[Any]
) -> RowState:
    """Return what a row is to hold, of the layers of this stage."""
    pairs = tuple(zip(blocks[::2], blocks[1::2], strict=True))
    return RowState(tokens, floor, cache.layers, cache.dtype, cache.layout, pairs)


class _StageCall:
    """A call with what the stage before gives."""

    def __init__(self, binding: RunnableCall, hidden: NDArray[np.float32] | None) -> None:
        self._binding, self._hidden = binding, hidden

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        return self._binding.run(replace(call, hidden=self._hidden))


def _main(arguments: Sequence[str]) -> None:
    with socket.socket(fileno=int(arguments[0])) as link:
        main(link)


if __name__ == "__main__":
    _main(sys.argv[1:])
