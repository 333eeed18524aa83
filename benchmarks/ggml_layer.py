"""MoE layers in ggml, the tensor library of llama.cpp: the graph that llama.cpp builds for gpt-oss,
in this process.

`peers.sh` builds the libraries; they are called through ctypes. Weights lie either as the model
file holds them or repacked by ggml for its own kernels, which llama.cpp does by default when it
loads a model.

Legend: N tokens, Hd hidden size, E experts, I expert width, G blocks of 32 in a row.
"""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARIES = Path(__file__).resolve().parent.parent / "build" / "peers" / "llama.cpp" / "bin"
F32, MXFP4 = 0, 39  # enum ggml_type
BLOCK, BLOCK_BYTES = 32, 17
CONTEXT_BYTES = 1 << 22  # of descriptions of tensors; their data lies elsewhere

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class GgmlError(RuntimeError):
    """ggml is not built, or refused something."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of one layer, and the constants of its activation."""

    hidden: int
    width: int
    experts: int
    top_k: int
    alpha: float
    limit: float


def is_built() -> bool:
    """Say whether `peers.sh` has built the libraries."""
    return (LIBRARIES / "libggml.so").exists()


def to_ggml(blocks: Bytes, scales: Bytes) -> Bytes:
    """Return a checkpoint's blocks (…, G, 16) and scales (…, G) as ggml's (…, G, 17): the same
    values.

    A checkpoint's byte j holds elements 2j and 2j + 1 of a block, ggml's byte j elements j and j +
    16.
    """
    half = BLOCK // 2
    low, high = blocks & 15, blocks >> 4
    packed = np.empty((*scales.shape, BLOCK_BYTES), np.uint8)
    packed[..., 0] = scales
    packed[..., 1::2] = low[..., : half // 2] | low[..., half // 2 :] << 4
    packed[..., 2::2] = high[..., : half // 2] | high[..., half // 2 :] << 4
    return packed


class Experts:
    """The weights of some layers, placed in ggml's memory.

    Args:
        sizes: sizes of each layer.
        weights: per layer, gate (E, I, Hd/32, 17), up (likewise) and down (E, Hd, I/32, 17) in
            ggml's blocks.
        layers: how many there are.
        threads: threads that compute.
        repack: let ggml repack the weights for its own kernels.

    Raises:
        GgmlError: ggml is not built, or has no such kernels for this processor.
    """

    def __init__(
        self,
        sizes: Sizes,
        weights: Iterable[tuple[Bytes, ...]],
        layers: int,
        threads: int,
        repack: bool,
    ) -> None:
        self.sizes = sizes
        self.backend = call("ggml_backend_cpu_init")
        call("ggml_backend_cpu_set_n_threads", self.backend, ctypes.c_int(threads), result=None)
        plain = call("ggml_backend_get_default_buffer_type", self.backend)
        widths = (sizes.width, sizes.width, sizes.hidden)
        inputs = (sizes.hidden, sizes.hidden, sizes.width)
        context = new_context()
        self.layers = [
            [
                new_tensor(context, MXFP4, *shape, sizes.experts)
                for shape in zip(inputs, widths, strict=True)
            ]
            for _ in range(layers)
        ]
        _allocate(context, _repacked(self.backend) if repack else plain)
        for tensors, layer in zip(self.layers, weights, strict=True):  # one layer at a time
            for tensor, weight in zip(tensors, layer, strict=True):
                _set(tensor, weight)
        context = new_context()
        self.biases = [new_tensor(context, F32, width, sizes.experts) for width in widths]
        _allocate(context, plain)
        for bias, width in zip(self.biases, widths, strict=True):
            _set(bias, np.zeros((sizes.experts, width), np.float32))


class Call:
    """A call of `tokens` tokens: every layer reads one hidden state, and has router logits and an
    output of its own.
    """

    def __init__(self, experts: Experts, tokens: int) -> None:
        self._sizes, self._tokens, self._backend = experts.sizes, tokens, experts.backend
        plain = call("ggml_backend_get_default_buffer_type", self._backend)
        context = new_context()
        self._hidden = new_tensor(context, F32, self._sizes.hidden, 1, tokens)
        self._routers = [
            new_tensor(context, F32, self._sizes.experts, tokens) for _ in experts.layers
        ]
        _allocate(context, plain)
        context = new_context()
        self._graph = call("ggml_new_graph", context)
        self._outputs = []
        for router, weights in zip(self._routers, experts.layers, strict=True):
            output = self._layer(context, router, weights, experts.biases)
            call("ggml_set_output", output, result=None)
            call("ggml_build_forward_expand", self._graph, output, result=None)
            self._outputs.append(output)
        allocator = call("ggml_gallocr_new", plain)
        if not call("ggml_gallocr_alloc_graph", allocator, self._graph, result=ctypes.c_bool):
            raise GgmlError("ggml_gallocr_alloc_graph failed")

    def set_inputs(self, hidden: Floats, routers: Sequence[Floats]) -> None:
        """Set hidden (N, Hd) and each layer's router logits (N, E)."""
        _set(self._hidden, hidden)
        for tensor, router in zip(self._routers, routers, strict=True):
            _set(tensor, router)

    def run(self) -> None:
        """Compute all layers."""
        if call("ggml_backend_graph_compute", self._backend, self._graph, result=ctypes.c_int) != 0:
            raise GgmlError("ggml_backend_graph_compute failed")

    def output(self, layer: int) -> Floats:
        """Return a layer's output (N, Hd)."""
        values = np.empty((self._tokens, self._sizes.hidden), np.float32)
        sizes = (ctypes.c_size_t(0), ctypes.c_size_t(values.nbytes))
        call("ggml_backend_tensor_get", self._outputs[layer], _address(values), *sizes, result=None)
        return values

    def _layer(
        self, context: Any, router: Any, weights: Sequence[Any], biases: Sequence[Any]
    ) -> Any:
        """Build one layer as llama.cpp does: softmax over the chosen logits, experts, weighted
        sum.
        """
        sizes, tokens = self._sizes, self._tokens
        gate_weight, up_weight, down_weight = weights
        gate_bias, up_bias, down_bias = biases
        chosen = call("ggml_argsort_top_k", context, router, ctypes.c_int(sizes.top_k))
        logits = call(
            "ggml_get_rows", context, _reshape(context, router, 1, sizes.experts, tokens), chosen
        )
        shares = call("ggml_soft_max", context, _reshape(context, logits, sizes.top_k, tokens))
        shares = _reshape(context, shares, 1, sizes.top_k, tokens)
        up = self._project(context, up_weight, self._hidden, up_bias, chosen)
        gate = self._project(context, gate_weight, self._hidden, gate_bias, chosen)
        constants = (ctypes.c_float(sizes.alpha), ctypes.c_float(sizes.limit))
        activated = call("ggml_swiglu_oai", context, gate, up, *constants)
        weighted = call(
            "ggml_mul",
            context,
            self._project(context, down_weight, activated, down_bias, chosen),
            shares,
        )
        row = 4 * sizes.hidden
        steps = (ctypes.c_size_t(sizes.top_k * row),)
        views = [
            call(
                "ggml_view_2d",
                context,
                weighted,
                _i64(sizes.hidden),
                _i64(tokens),
                *steps,
                ctypes.c_size_t(i * row),
            )
            for i in range(sizes.top_k)
        ]
        total = views[0]
        for view in views[1:]:
            total = call("ggml_add", context, total, view)
        return total

    @staticmethod
    def _project(context: Any, weight: Any, x: Any, bias: Any, chosen: Any) -> Any:
        return call(
            "ggml_add_id",
            context,
            call("ggml_mul_mat_id", context, weight, x, chosen),
            bias,
            chosen,
        )


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


@cache
def _libraries() -> list[ctypes.CDLL]:
    if not is_built():
        raise GgmlError(f"{LIBRARIES}: no libggml.so: run benchmarks/peers.sh")
    return [
        ctypes.CDLL(str(LIBRARIES / f"lib{name}.so")) for name in ("ggml-base", "ggml-cpu", "ggml")
    ]


def call(name: str, *arguments: Any, result: Any = ctypes.c_void_p) -> Any:
    """Call a function of ggml; pointers are plain integers, and other arguments have their ctypes
    type.
    """
    for library in _libraries():
        function = getattr(library, name, None)
        if function is not None:
            function.restype = result
            return function(*(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments))
    raise GgmlError(f"ggml has no function {name}")


def new_context() -> Any:
    """Return memory for descriptions of tensors."""
    return call("ggml_init", _InitParams(CONTEXT_BYTES, None, True))


def new_tensor(context: Any, kind: int, *sizes: int) -> Any:
    """Describe a tensor of `sizes`, the innermost first."""
    return call(f"ggml_new_tensor_{len(sizes)}d", context, ctypes.c_int(kind), *map(_i64, sizes))


def _reshape(context: Any, tensor: Any, *sizes: int) -> Any:
    return call(f"ggml_reshape_{len(sizes)}d", context, tensor, *map(_i64, sizes))


def _i64(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _allocate(context: Any, buffer_type: Any) -> None:
    if not call("ggml_backend_alloc_ctx_tensors_from_buft", context, buffer_type):
        raise GgmlError("ggml_backend_alloc_ctx_tensors_from_buft failed")


def _set(tensor: Any, values: NDArray[Any]) -> None:
    values = np.ascontiguousarray(values)
    sizes = (ctypes.c_size_t(0), ctypes.c_size_t(values.nbytes))
    call("ggml_backend_tensor_set", tensor, _address(values), *sizes, result=None)


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _repacked(backend: Any) -> Any:
    """Return the buffer type whose weights ggml repacks as they are set."""
    device = call("ggml_backend_get_device", backend)
    registry = call("ggml_backend_dev_backend_reg", device)
    name = ctypes.c_char_p(b"ggml_backend_dev_get_extra_bufts")
    address = call("ggml_backend_reg_get_proc_address", registry, name)
    list_types = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)
    for candidate in list_types(device):
        if candidate is None:
            break
        if call("ggml_backend_buft_name", candidate, result=ctypes.c_char_p) == b"CPU_REPACK":
            return candidate
    raise GgmlError("ggml has no repacked kernels on this processor")
