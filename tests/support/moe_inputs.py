"""Random inputs of the MoE ops."""

from collections.abc import Mapping

import torch

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4


def mxfp4_inputs(
    tokens: int, hidden: int, width: int, experts: int, seed: int
) -> dict[str, torch.Tensor]:
    """Return the inputs of MoEDispatchMXFP4 in their order; the scales let some products reach the
    clamps.
    """
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "hidden": normal(tokens, hidden),
        "router_logits": normal(tokens, experts),
        "gate_up_blocks": integers(0, 256, experts, 2 * width, hidden // 32, 16),
        "gate_up_scales": integers(118, 128, experts, 2 * width, hidden // 32),
        "gate_up_bias": normal(experts, 2 * width),
        "down_blocks": integers(0, 256, experts, hidden, width // 32, 16),
        "down_scales": integers(116, 124, experts, hidden, width // 32),
        "down_bias": normal(experts, hidden),
    }


def dense_inputs(mxfp4: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the same experts as Hugging Face's dense layout stores them; every value here is exact
    in bfloat16.
    """

    def dense(name: str) -> torch.Tensor:
        return (
            decode_mxfp4(mxfp4[f"{name}_blocks"], mxfp4[f"{name}_scales"])
            .transpose(1, 2)
            .contiguous()
            .to(dtype)
        )

    kept = ("hidden", "router_logits")
    return {
        **{name: mxfp4[name] for name in kept},
        "gate_up": dense("gate_up"),
        "gate_up_bias": mxfp4["gate_up_bias"],
        "down": dense("down"),
        "down_bias": mxfp4["down_bias"],
    }


def laid_out(
    dense: dict[str, torch.Tensor],
    activation: str = "swiglu",
    interleaved: int = 1,
    transposed: int = 0,
    **_: object,
) -> dict[str, torch.Tensor]:
    """Return the experts of `dense_inputs` in another layout. An un-gated activation keeps the rows
    of the gates.
    """
    order = torch.arange(dense["gate_up"].shape[2])
    if activation != "swiglu":
        order = order[0::2]
    elif not interleaved:
        order = torch.cat((order[0::2], order[1::2]))
    weights = {"gate_up": dense["gate_up"][..., order], "down": dense["down"]}
    if transposed:
        weights = {name: weight.transpose(1, 2) for name, weight in weights.items()}
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    return {**dense, **weights, "gate_up_bias": dense["gate_up_bias"][:, order]}


def separated(halves: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs of MoEDispatchSeparate in their order, for experts that `laid_out` gives
    with `interleaved` 0 and `transposed` 1; their biases are left out.
    """
    gates, ups = halves["gate_up"].chunk(2, dim=1)
    parts = {"gate": gates, "up": ups, "down": halves["down"]}
    return {name: halves[name] for name in ("hidden", "router_logits")} | {
        f"{name}_{expert}": matrix.contiguous()
        for name, stacked in parts.items()
        for expert, matrix in enumerate(stacked)
    }


def listed(
    inputs: Mapping[str, torch.Tensor | None],
) -> tuple[torch.Tensor | list[torch.Tensor], ...]:
    """Return the arguments of `moe_dispatch_separate`: its matrices in three lists."""
    hidden, router_logits, *matrices = (x for x in inputs.values() if x is not None)
    count = len(matrices) // 3
    lists = [matrices[first : first + count] for first in range(0, len(matrices), count)]
    return (hidden, router_logits, *lists)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference against the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())
