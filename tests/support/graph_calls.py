"""Calls of a portable graph in any runtime: a prompt, then one token a call, on rings that wrap.

B batch (here 1), V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gptoss_onnx.exporter import Package
from gptoss_onnx.manifest import Manifest

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
PROMPT = 7


class GraphCalls:
    """One sequence in a graph; `run` gives all outputs by name, given all inputs."""

    def __init__(self, run: Run, manifest: Manifest, capacity: int) -> None:
        self._run, self._manifest, self._length = run, manifest, 0
        self._caches: dict[str, NDArray[Any]] = {}
        for layer in manifest.cache:
            ring = layer.window + PROMPT - 1  # the fewest slots that calls of the prompt bear
            slots = min(ring, capacity) if layer.window else capacity
            shape = (1, layer.kv_heads, slots, layer.head_dim)
            for name in (layer.past_key, layer.past_value):
                self._caches[name] = np.zeros(shape, manifest.kv_dtype)

    def forward(self, tokens: list[int]) -> NDArray[np.float32]:
        """Run new tokens, at most as many as the prompt; returns their logits (tokens, V)."""
        count = len(tokens)
        given = {
            "input_ids": np.array([tokens], np.int64),
            "past_lengths": np.array([self._length], np.int64),
            "new_lengths": np.array([count], np.int64),
            "logit_positions": np.arange(count, dtype=np.int64)[None],
            **self._caches,
        }
        found = self._run(given)
        self._length += count
        for layer in self._manifest.cache:
            self._caches[layer.past_key] = found[layer.present_key]
            self._caches[layer.past_value] = found[layer.present_value]
        return np.asarray(found["logits"][0], np.float32)

    def score(self, tokens: list[int]) -> NDArray[np.float32]:
        """Return the logits of all tokens: the prompt in one call, each other one in one."""
        pieces = [tokens[:PROMPT], *([token] for token in tokens[PROMPT:])]
        return np.concatenate([self.forward(piece) for piece in pieces])


def in_onnxruntime(package: Package) -> Run:
    """Return what runs a package's graph in ONNX Runtime, with the bodies that it carries."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each cache that it copies
    session = onnxruntime.InferenceSession(str(package.graph), options)
    names = [output.name for output in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(None, dict(given)), strict=True))


def score(run: Run, package: Package, tokens: list[int]) -> NDArray[np.float32]:
    """Return the logits (T, V) of tokens on a cache of their own."""
    return GraphCalls(run, package.manifest, len(tokens)).score(tokens)


def greedy(run: Run, package: Package, prompt: list[int], count: int) -> list[int]:
    """Return the most likely tokens after a prompt of at most PROMPT."""
    calls = GraphCalls(run, package.manifest, len(prompt) + count)
    chosen: list[int] = []
    piece = prompt
    for _ in range(count):
        chosen.append(int(calls.forward(piece)[-1].argmax()))
        piece = chosen[-1:]
    return chosen
