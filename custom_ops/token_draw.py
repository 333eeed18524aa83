"""TokenDraw: the native library's sampler, which draws what the runtime's RowSampler draws."""

import ctypes
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.errors import RuntimeUnavailable


class _Settings(ctypes.Structure):
    """GptossDraw of `abi/gptoss_ops.h`."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("uniform", ctypes.c_double),
    )


class TokenDraw:
    """Draws one token at a time; one thread at a time, since draws share a workspace.

    V vocabulary.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._weights = np.zeros(0, np.float64)
        self._bins = np.zeros(0, np.uint16)

    @classmethod
    def open(cls) -> Self:
        """Load the native library; raises RuntimeUnavailable where it is missing, too old, or
        refuses this process's `GPTOSS_CPU_LEVEL`.
        """
        path = library_info().path
        try:
            function = ctypes.CDLL(str(path)).gptoss_draw_token
        except AttributeError as error:
            raise RuntimeUnavailable(
                f"native library: {path} draws no tokens; to rebuild it, reinstall gptoss-onnx"
            ) from error
        pointer = ctypes.c_void_p
        function.argtypes = [
            pointer,
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_double,
            ctypes.POINTER(_Settings),
            pointer,
            pointer,
        ]
        function.restype = ctypes.c_int64
        return cls(function)

    def draw(
        self,
        scores: NDArray[Any],
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        uniform: float,
    ) -> int:
        """Return a token.

        Args:
            scores: float32 or float64 (V), finite or −infinity, at least one finite.
            temperature: above 0.
            top_k: 0 keeps all, as `top_p` 1 and `min_p` 0 do.
            top_p: the nucleus.
            min_p: least share of the largest probability.
            uniform: the random number, 0 ≤ u < 1.

        Raises RuntimeUnavailable where there is no memory.
        """
        assert scores.dtype in (np.float32, np.float64)
        scores = np.ascontiguousarray(scores)
        if self._weights.size < scores.size:
            self._weights = np.zeros(scores.size, np.float64)
            self._bins = np.zeros(scores.size, np.uint16)
        settings = _Settings(temperature, min(top_k, scores.size), top_p, min_p, uniform)
        token = self._function(
            scores.ctypes.data,
            scores.dtype == np.float64,
            scores.size,
            float(scores.max()),
            settings,
            self._weights.ctypes.data,
            self._bins.ctypes.data,
        )
        if token < 0:
            raise RuntimeUnavailable("native library: no memory to draw a token")
        return int(token)
