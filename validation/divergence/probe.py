"""Probe: a package's graph with more outputs, opened as a session opens it, and recorded calls run
on it again.

B batch, S columns of a call of the graph.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gptoss_onnx.choices import Kernels
from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import read_file
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.binding import Binding
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.environment import execution_providers, load_onnxruntime
from gptoss_onnx.runtime.graph import load_graph
from gptoss_onnx.runtime.graph_file import GRAPH_LIMIT
from gptoss_onnx.runtime.kernels import choose_kernels
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.request import Request
from gptoss_onnx.runtime.target import CallInputs
from gptoss_onnx.validation.divergence.recording import FirstUse, Recording


@dataclass(frozen=True)
class Step:
    """One call of the graph, run again.

    Attributes:
        number: counted from 0, over all recorded calls of the graph.
        cache: number of its cache.
        inputs: what the graph was given.
        values: what was found, by the names of the graph's values.
        logits: float32 (B, kept, V).
    """

    number: int
    cache: int
    inputs: CallInputs
    values: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]


Found = tuple[CallInputs, dict[str, NDArray[Any]], NDArray[np.float32]]


def read_graph(session: Session) -> onnx.ModelProto:
    """Return the graph of an opened package, without its weights."""
    return onnx.load_model_from_string(read_file(session.package.graph, GRAPH_LIMIT, PackageError))


class Probe(Closing):
    """A graph of a package that also gives the values of `names`; frees the weights when closed."""

    def __init__(self, session: Session, model: onnx.ModelProto, names: Sequence[str]) -> None:
        """Open the graph as `session` has it.

        Raises PackageError where ONNX Runtime cannot load it with these outputs.
        """
        self._session, self._names = session, tuple(names)
        self._onnxruntime = load_onnxruntime()
        kernels: Kernels = "auto" if session.kernels == "contrib" else session.kernels
        manifest = session.manifest
        choice = choose_kernels(manifest, kernels, session.activations, session.provider)
        providers = execution_providers(self._onnxruntime, session.provider)
        extended = _with_outputs(model, self._names)
        self._inference: Any = load_graph(
            self._onnxruntime,
            session.package,
            choice,
            session.activations,
            providers,
            None,
            extended.SerializeToString(),
        )

    def close(self) -> None:
        """Free the weights."""
        self._inference = None

    def replay(self, recording: Recording) -> Iterator[Step]:
        """Run the recorded calls again, and yield each call of the graph with what it gave.

        Raises what `Session.forward` raises, where it fails again.
        """
        caches: dict[int, KVCache] = {}
        number = 0
        try:
            for call in recording.calls:
                if call.cache not in caches:
                    caches[call.cache] = self._new_cache(recording.caches[call.cache])
                cache = caches[call.cache]
                if cache.capacity < call.capacity:
                    cache.grow(call.capacity)
                if (cache.lengths != call.lengths).any():
                    cache.rewind(call.lengths)
                for inputs, values, logits in self._run(cache, call.request):
                    yield Step(number, call.cache, inputs, values, logits)
                    number += 1
        finally:
            for cache in caches.values():
                cache.close()

    def _new_cache(self, first: FirstUse) -> KVCache:
        if first.held is not None:
            return first.held.fork()
        return self._session.new_cache(
            first.batch, first.capacity, first.reserve, chunk=first.chunk
        )

    def _run(self, cache: KVCache, request: Request) -> Iterator[Found]:
        """Run a request as `gptoss_onnx.runtime.calls` does, call by call."""
        binding, part = self._bind(cache), cache.part()
        begin = 0
        while begin < request.longest:
            end = begin + part.columns(request.longest - begin)
            call = request.call(begin, end)
            part.mark_writing(end - begin)
            inputs = CallInputs(
                call.input_ids,
                part.lengths,
                call.new_lengths,
                call.logit_positions,
                part.window_starts,
            )
            logits = binding.run(inputs)
            part.advance(call.new_lengths, call.input_ids)
            yield inputs, binding.watched, logits
            begin = end

    def _bind(self, cache: KVCache) -> Binding:
        vocab, contract = self._session.vocab, self._session.contract
        return Binding(
            self._onnxruntime, self._inference, cache, vocab, contract, watch=self._names
        )


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of `model` with float32 values of these names among its outputs."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {output.name for output in extended.graph.output}
    for name in names:
        if name not in known:
            output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            extended.graph.output.append(output)
    return extended
