"""MoEDispatch and MoEDispatchMXFP4 as gpt-oss uses them: definitions against transformers, bodies
against the definitions.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GptOssConfig
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

from gptoss_onnx.custom_ops import moe_dispatch  # noqa: F401 - it defines the ops
from gptoss_onnx.custom_ops.moe_routing import route
from gptoss_onnx.custom_ops.mxfp4 import LEVELS, decode_mxfp4
from support.moe_inputs import dense_inputs, mxfp4_inputs, relative_error
from support.op_models import op_model, run_ort, run_reference, session_of
from support.tolerances import BODY_EXPERTS

ATTRIBUTES = {"top_k": 2, "alpha": 1.702, "limit": 7.0}


def test_decode_is_the_published_format_for_every_byte_and_scale() -> None:
    """All 256 bytes under all 255 finite scales, against the formula in float64 and against
    transformers.
    """
    blocks = torch.arange(256, dtype=torch.uint8).view(16, 1, 16).expand(16, 255, 16)
    scales = torch.arange(255, dtype=torch.uint8).expand(16, 255)
    values = decode_mxfp4(blocks, scales).view(16, 255, 32)
    nibbles = np.stack((blocks.numpy() & 15, blocks.numpy() >> 4), axis=-1).reshape(16, 255, 32)
    expected = np.ldexp(np.array(LEVELS)[nibbles], np.arange(255)[None, :, None] - 127)
    # the largest scales overflow float32, which is what the format asks of it
    with np.errstate(over="ignore"):
        exact = expected.astype(np.float32)
    np.testing.assert_array_equal(values.numpy(), exact)
    assert torch.isnan(
        decode_mxfp4(blocks[:, :1], torch.full((16, 1), 255, dtype=torch.uint8))
    ).all()

    usual = slice(60, 180)
    theirs = convert_moe_packed_tensors(
        blocks[:, usual].contiguous().unsqueeze(0),
        scales[:, usual].contiguous().unsqueeze(0),
        dtype=torch.float32,
    )
    torch.testing.assert_close(
        decode_mxfp4(blocks[:, usual], scales[:, usual]), theirs[0].T, atol=0, rtol=0
    )


@pytest.mark.parametrize("layout", ["mxfp4", "dense"])
def test_definition_equals_transformers(layout: str) -> None:
    inputs = mxfp4_inputs(tokens=23, hidden=64, width=96, experts=5, seed=1)
    dense = dense_inputs(inputs, torch.float32)
    config = GptOssConfig(
        hidden_size=64,
        intermediate_size=96,
        num_local_experts=5,
        num_experts_per_tok=2,
        num_hidden_layers=1,
    )
    theirs = GptOssMLP(config)
    state = {
        "router.weight": torch.randn(5, 64, generator=torch.Generator().manual_seed(2)),
        "router.bias": torch.zeros(5),
        "experts.gate_up_proj": dense["gate_up"],
        "experts.gate_up_proj_bias": dense["gate_up_bias"],
        "experts.down_proj": dense["down"],
        "experts.down_proj_bias": dense["down_bias"],
    }
    theirs.load_state_dict(state)
    with torch.inference_mode():
        expected = theirs(inputs["hidden"].unsqueeze(0))[0][0]
    logits = inputs["hidden"] @ state["router.weight"].T
    chosen = {
        "mxfp4": (torch.ops.gptoss.moe_dispatch_mxfp4, inputs),
        "dense": (torch.ops.gptoss.moe_dispatch, dense),
    }
    op, arguments = chosen[layout]
    found = op(*{**arguments, "router_logits": logits}.values(), *ATTRIBUTES.values())
    assert relative_error(found, expected) < BODY_EXPERTS


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**31))
def test_ties_go_to_the_lower_expert(tokens: int, experts: int, seed: int) -> None:
    logits = torch.randint(
        0, 3, (tokens, experts), generator=torch.Generator().manual_seed(seed)
    ).float()
    top_k = 1 + seed % experts
    chosen, shares = route(logits, top_k)
    for row, picked in zip(logits.tolist(), chosen.tolist(), strict=True):
        assert picked == sorted(range(experts), key=lambda expert: (-row[expert], expert))[:top_k]
    torch.testing.assert_close(shares.sum(-1), torch.ones(tokens))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.data())
def test_mxfp4_body_equals_definition(
    tokens: int, hidden: int, width: int, experts: int, data: st.DataObject
) -> None:
    inputs = mxfp4_inputs(
        tokens, 32 * hidden, 32 * width, experts, data.draw(st.integers(0, 2**31))
    )
    if data.draw(st.booleans()):
        inputs["router_logits"] = inputs["router_logits"].round()  # ties
    attributes = {**ATTRIBUTES, "top_k": data.draw(st.integers(1, experts))}
    expected = torch.ops.gptoss.moe_dispatch_mxfp4(*inputs.values(), *attributes.values())
    model = op_model("MoEDispatchMXFP4", inputs, attributes)
    assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
    assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 13])
def test_dense_body_equals_definition(dtype: torch.dtype, tokens: int) -> None:
    inputs = dense_inputs(mxfp4_inputs(tokens, 64, 32, 6, seed=tokens), dtype)
    expected = torch.ops.gptoss.moe_dispatch(*inputs.values(), *ATTRIBUTES.values())
    model = op_model("MoEDispatch", inputs, ATTRIBUTES)
    assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
    if dtype != torch.bfloat16:  # numpy has no bfloat16
        assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


def test_dense_and_mxfp4_agree() -> None:
    inputs = mxfp4_inputs(tokens=9, hidden=32, width=64, experts=4, seed=7)
    packed = torch.ops.gptoss.moe_dispatch_mxfp4(*inputs.values(), *ATTRIBUTES.values())
    dense = torch.ops.gptoss.moe_dispatch(
        *dense_inputs(inputs, torch.bfloat16).values(), *ATTRIBUTES.values()
    )
    assert relative_error(dense, packed) < BODY_EXPERTS
