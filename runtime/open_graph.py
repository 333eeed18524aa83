"""OpenGraph: the graph that a session runs, the weight files behind it, and the caches bound to it.

Threads may share it: a lock guards the graph and the set of bound caches, for moments only.
"""

import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Self
from weakref import WeakSet

from gptoss_onnx.choices import Activations, Provider
from gptoss_onnx.errors import InputError
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.binding import Binding
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.environment import (
    check_active_provider,
    check_version,
    execution_providers,
    load_onnxruntime,
)
from gptoss_onnx.runtime.expert_check import check_experts
from gptoss_onnx.runtime.graph import check_interface, load_graph
from gptoss_onnx.runtime.kernels import KernelChoice
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.target import contract_of, result_width
from gptoss_onnx.runtime.weight_watch import WeightWatch


class OpenGraph(Closing):
    """A graph in ONNX Runtime; a context manager that frees the weights.

    Raises PackageError if its inputs and outputs are not those of the manifest.
    """

    def __init__(
        self,
        onnxruntime: ModuleType,
        inference: Any,
        package: Package,
        provider: Provider,
        weights: WeightWatch,
    ) -> None:
        check_interface(inference, package.manifest)
        self._onnxruntime = onnxruntime
        self._inference: Any | None = inference
        self._manifest, self._provider, self._weights = package.manifest, provider, weights
        self._contract = contract_of(package.manifest)
        self._lock = threading.Lock()
        self._bound: WeakSet[KVCache] = WeakSet()

    @classmethod
    def load(
        cls,
        package: Package,
        choice: KernelChoice,
        activations: Activations,
        provider: Provider,
        threads: int | None,
    ) -> Self:
        """Load a package's graph; raises PackageError and RuntimeUnavailable as `Session.open`."""
        onnxruntime = load_onnxruntime()
        check_version(onnxruntime, package)
        check_experts(onnxruntime, package)
        providers = execution_providers(onnxruntime, provider)
        entries = package.manifest.weights.files
        weights = WeightWatch(package.weight_path(entry) for entry in entries)
        inference = load_graph(onnxruntime, package, choice, activations, providers, threads)
        weights.check_mapped()
        check_active_provider(inference.get_providers(), provider)
        return cls(onnxruntime, inference, package, provider, weights)

    def new_cache(self, batch: int, capacity: int, reserve: int, chunk: int) -> KVCache:
        """Return an empty cache; see `Session.new_cache`."""
        return KVCache(
            self._onnxruntime,
            self._manifest.cache,
            self._manifest.kv_dtype,
            self._contract.layout,
            batch,
            capacity,
            reserve,
            chunk,
            self._provider,
        )

    def binding(self, cache: KVCache, rows: int) -> Binding:
        """Return the binding of the cache's first `rows` rows to the graph, made now if there is
        none; the cache must be in use by the caller.

        Raises InputError for a cache of another package or provider, and for a closed one.
        """
        manifest = self._manifest
        ours = (manifest.cache, manifest.kv_dtype, self._contract.layout, self._provider)
        with self._lock:
            inference = self._open()
            if (cache.layers, cache.dtype, cache.layout, cache.device) != ours:
                raise InputError(
                    "cache: found one of another package or provider; make it with this session's "
                    "new_cache"
                )
            cache.buffers  # noqa: B018 - refuses a closed cache
            binding = cache.bindings.get(rows)
            if binding is None or binding.session is not inference:
                width, contract = result_width(manifest), self._contract
                binding = Binding(self._onnxruntime, inference, cache, width, contract, rows)
                # Never changed in place: another session of the package may look at the same time.
                cache.bindings = {**_of(inference, cache.bindings), rows: binding}
                self._bound.add(cache)
            return binding

    def check_weights(self) -> None:
        """Raise PackageError if a weight file has changed, InputError once closed."""
        with self._lock:
            self._open()
            self._weights.check()

    def close(self) -> None:
        """Refuse further calls and free the weights; caches lose their bindings to them.

        Calls that other threads are in at that moment finish as if nothing had happened, and the
        weights are freed when the last of them returns.
        """
        with self._lock:
            inference, self._inference = self._inference, None
            for cache in self._bound:
                if _of(inference, cache.bindings):
                    cache.bindings = {}
            self._bound.clear()
            self._weights.close()

    def _open(self) -> Any:
        if self._inference is None:
            raise InputError(
                "session: found it closed, expected an open one; open the package again"
            )
        return self._inference


def _of(inference: Any, bindings: Mapping[int, Binding]) -> dict[int, Binding]:
    """Return the bindings to one graph in ONNX Runtime."""
    return {rows: each for rows, each in bindings.items() if each.session is inference}
