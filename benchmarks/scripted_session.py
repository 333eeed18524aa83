"""A session that says a text that is laid down, at the cost of saying anything else."""

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime import KVCache, Session
from gptoss_onnx.runtime.runnable import RunnableCall, RunnableGraph
from gptoss_onnx.runtime.target import CallInputs


class _Graph:
    """The graph of a session, whose logits are changed after each call."""

    def __init__(self, graph: RunnableGraph, text: NDArray[np.int64]) -> None:
        self._graph, self._text = graph, text

    def new_cache(self, batch: int, capacity: int, reserve: int, chunk: int) -> KVCache:
        """Return an empty cache."""
        return self._graph.new_cache(batch, capacity, reserve, chunk)

    def binding(self, cache: KVCache, rows: int) -> "_Call":
        """Return what runs the graph."""
        return _Call(self._graph.binding(cache, rows), self._text)

    def check_weights(self) -> None:
        """Look at the weights."""
        self._graph.check_weights()

    def close(self) -> None:
        """The session that it was made from closes it."""


class _Call:
    def __init__(self, call: RunnableCall, text: NDArray[np.int64]) -> None:
        self._call, self._text = call, text

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        """Run the graph, and make the next token of the text the most probable one."""
        logits = self._call.run(call)
        after = call.past_lengths[:, None] + call.logit_positions + 1  # (B, kept)
        for row, places in enumerate(after):
            for kept, place in enumerate(places):
                if place < self._text.size:
                    logits[row, kept, self._text[place]] = 1e4
        return logits


def scripted(session: Session, text: NDArray[np.int64]) -> Session:
    """Return a session of the same graph that says `text` (T), where it is in what it says."""
    graph = _Graph(session._graph, text)
    return Session(graph, session.package, session.kernels, session.activations, session.provider)
