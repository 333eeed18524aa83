"""MoEDispatch and MoEDispatchMXFP4 as other architectures use them: definitions against
transformers and PyTorch, bodies against the definitions.
"""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import MixtralConfig, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from gptoss_onnx.custom_ops import moe_dispatch  # noqa: F401 - it defines the ops
from gptoss_onnx.custom_ops.bodies import Use, function_protos
from gptoss_onnx.custom_ops.moe_activation import activate
from gptoss_onnx.custom_ops.moe_attributes import MoEAttributes
from gptoss_onnx.errors import InputError
from support.moe_inputs import dense_inputs, laid_out, mxfp4_inputs, relative_error
from support.op_models import op_model, run_ort, run_reference, session_of
from support.tolerances import BODY_EXPERTS

UNGATED = ("gelu", "gelu_tanh", "relu", "silu")
# SwiGLU without clamps, as in Mixtral and Qwen
PLAIN: dict[str, Any] = {"top_k": 2, "alpha": 1.0, "limit": float("inf"), "beta": 0.0}
HF: dict[str, Any] = {**PLAIN, "interleaved": 0, "transposed": 1}
CLAMPED: dict[str, Any] = {"top_k": 2, "alpha": 1.702, "limit": 7.0}


def normal_(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


def call_of(block: Any, tokens: int) -> dict[str, torch.Tensor | None]:
    """Return the op's inputs for a mixture of transformers: its weights are what they are."""
    hidden = torch.randn(tokens, 32, generator=torch.Generator().manual_seed(2))
    experts = block.experts
    return {
        "hidden": hidden,
        "router_logits": F.linear(hidden, block.gate.weight),
        "gate_up": experts.gate_up_proj.detach(),
        "gate_up_bias": None,
        "down": experts.down_proj.detach(),
        "down_bias": None,
    }


def output_of(block: Any, hidden: torch.Tensor) -> torch.Tensor:
    found = block(hidden.unsqueeze(0))
    return (found[0] if isinstance(found, tuple) else found).view_as(hidden)


@torch.inference_mode()
def test_halves_by_rows_are_mixtral() -> None:
    config = MixtralConfig(
        hidden_size=32, intermediate_size=48, num_local_experts=5, num_experts_per_tok=2
    )
    block = normal_(MixtralSparseMoeBlock(config))
    inputs = call_of(block, 19)
    found = torch.ops.gptoss.moe_dispatch(*inputs.values(), **HF)
    assert relative_error(found, output_of(block, inputs["hidden"])) < BODY_EXPERTS


@torch.inference_mode()
@pytest.mark.parametrize("normalize", [0, 1])
def test_shares_are_qwens(normalize: int) -> None:
    config = Qwen3MoeConfig(
        hidden_size=32,
        moe_intermediate_size=24,
        num_experts=6,
        num_experts_per_tok=3,
        norm_topk_prob=bool(normalize),
    )
    block = normal_(Qwen3MoeSparseMoeBlock(config))
    inputs = call_of(block, 19)
    attributes = {**HF, "top_k": 3}
    found = torch.ops.gptoss.moe_dispatch(*inputs.values(), **attributes, normalize=normalize)
    assert relative_error(found, output_of(block, inputs["hidden"])) < BODY_EXPERTS
    other = torch.ops.gptoss.moe_dispatch(*inputs.values(), **attributes, normalize=1 - normalize)
    assert relative_error(found, other) > BODY_EXPERTS


@pytest.mark.parametrize("activation", UNGATED)
def test_ungated_activations_are_torchs(activation: str) -> None:
    theirs = {"gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}
    x = torch.randn(7, 40, generator=torch.Generator().manual_seed(3))
    attributes = MoEAttributes(2, 1.702, 7.0, activation=activation)
    expected = theirs.get(activation, getattr(F, activation, None))(x)
    torch.testing.assert_close(activate(x, attributes), expected, atol=0, rtol=0)


def test_plain_swiglu_is_silu_of_the_gate_times_up() -> None:
    gate, up = torch.randn(2, 7, 40, generator=torch.Generator().manual_seed(3))
    attributes = MoEAttributes(2, 1.0, float("inf"), beta=0.0, interleaved=0)
    found = activate(torch.cat((gate, up), dim=1), attributes)
    assert relative_error(found, F.silu(gate) * up) < BODY_EXPERTS


def test_layouts_agree() -> None:
    dense = dense_inputs(mxfp4_inputs(9, 32, 64, experts=4, seed=7), torch.float32)
    expected = torch.ops.gptoss.moe_dispatch(*dense.values(), **CLAMPED)
    for interleaved, transposed in product((0, 1), (0, 1)):
        layout = {"interleaved": interleaved, "transposed": transposed}
        inputs = laid_out(dense, **layout)
        found = torch.ops.gptoss.moe_dispatch(*inputs.values(), **CLAMPED, **layout)
        assert relative_error(found, expected) < BODY_EXPERTS


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("biases", ["both", "gate_up", "down", "none"])
@pytest.mark.parametrize(
    "variant",
    [
        *({**PLAIN, "interleaved": i, "transposed": t} for i, t in product((0, 1), (0, 1))),
        *({**CLAMPED, "activation": activation} for activation in UNGATED),
    ],
)
def test_dense_bodies_equal_the_definition(
    variant: dict[str, Any], biases: str, normalize: int
) -> None:
    dense = dense_inputs(mxfp4_inputs(11, 64, 32, experts=5, seed=1), torch.float32)
    dense["router_logits"] = dense["router_logits"].round()  # ties
    attributes = {**variant, "normalize": normalize}
    inputs: dict[str, torch.Tensor | None] = {**laid_out(dense, **attributes)}
    for name in ("gate_up", "down"):
        if biases not in ("both", name):
            inputs[f"{name}_bias"] = None
    expected = torch.ops.gptoss.moe_dispatch(*inputs.values(), **attributes)
    model = op_model("MoEDispatch", inputs, attributes)
    assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
    assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


@pytest.mark.parametrize("activation", ["swiglu", *UNGATED])
def test_mxfp4_bodies_equal_the_definition(activation: str) -> None:
    inputs: dict[str, torch.Tensor | None] = {**mxfp4_inputs(7, 64, 64, experts=4, seed=2)}
    inputs["gate_up_bias"] = None
    if activation != "swiglu":
        for name in ("gate_up_blocks", "gate_up_scales"):
            inputs[name] = inputs[name][:, ::2].contiguous()
    attributes = {**CLAMPED, "beta": 0.5, "activation": activation, "normalize": 0}
    expected = torch.ops.gptoss.moe_dispatch_mxfp4(*inputs.values(), **attributes)
    model = op_model("MoEDispatchMXFP4", inputs, attributes)
    assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
    assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


def test_nodes_that_need_different_bodies_are_refused() -> None:
    uses = [Use("MoEDispatch", {}, {"activation": name}) for name in ("gelu", "relu")]
    with pytest.raises(InputError, match="MoEDispatch: found nodes that need different portable"):
        function_protos(uses)
