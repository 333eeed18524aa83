"""What the attributes of MoEDispatch and MoEDispatchMXFP4 say, in one value that travels whole.

Legend: E experts.
"""

import math
from dataclasses import dataclass

from gptoss_onnx.custom_ops.checks import expect_attribute, expect_flag

GATED = "swiglu"
UNGATED = ("gelu", "gelu_tanh", "relu", "silu")
ACTIVATIONS = (GATED, *UNGATED)


@dataclass(frozen=True)
class MoEAttributes:
    """The attributes that both ops have, in their order; defaults are those of the ONNX schema.

    gpt-oss's are MoEAttributes(top_k, 1.702, 7.0). Plain SwiGLU, as in Mixtral, has alpha 1, limit
    ∞ and beta 0. Un-gated activations use neither alpha, limit, beta nor interleaved.
    """

    top_k: int  # experts a token is sent to; ties go to the lower index, as in ONNX TopK
    alpha: float  # gain inside the sigmoid
    limit: float  # clamp of gate (above) and up (both sides); ∞ clamps nothing
    beta: float = 1.0  # added to up
    activation: str = GATED
    normalize: int = 1  # 1: softmax over the chosen; 0: over all experts, shares stay as they are
    interleaved: int = 1  # 1: even rows are gates and odd ones ups; 0: gates, then ups

    @property
    def shared(self) -> tuple[int, float, float, float, str, int]:
        """The attributes of both ops, in the order in which they take them."""
        gate = (self.alpha, self.limit, self.beta)
        return (self.top_k, *gate, self.activation, self.normalize)

    @property
    def rows_each(self) -> int:
        """Rows of gate_up for one row of the expert's width: gate and up, or one alone."""
        return 2 if self.activation == GATED else 1

    @property
    def rows_legend(self) -> str:
        """The rows of gate_up as error messages print them."""
        return "2I" if self.activation == GATED else "I"

    def check(self, op: str, experts: int) -> None:
        """Raise InputError that names `op` where an attribute makes no sense."""
        top_k = 1 <= self.top_k <= experts
        expect_attribute(op, "top_k", self.top_k, top_k, f"1 to {experts}, the number of experts")
        expect_attribute(op, "alpha", self.alpha, math.isfinite(self.alpha), "a finite number")
        expect_attribute(op, "limit", self.limit, self.limit >= 0, "at least 0")
        expect_attribute(op, "beta", self.beta, math.isfinite(self.beta), "a finite number")
        known = self.activation in ACTIVATIONS
        expected = f"one of {', '.join(ACTIVATIONS)}"
        expect_attribute(op, "activation", repr(self.activation), known, expected)
        expect_flag(op, "normalize", self.normalize)
        expect_flag(op, "interleaved", self.interleaved)
