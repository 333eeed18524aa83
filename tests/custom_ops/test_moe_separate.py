"""MoEDispatchSeparate: its definition against MoEDispatch and transformers, its body against the
definition, its kernel at every CPU level, and what is refused.
"""

import re
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from gptoss_onnx.custom_ops.bodies import Use, function_protos
from gptoss_onnx.errors import InputError
from support.moe_cases import DTYPES, MODES, Inputs, definition, error_of, native_case
from support.moe_inputs import (
    dense_inputs,
    laid_out,
    listed,
    mxfp4_inputs,
    relative_error,
    separated,
)
from support.native_levels import (
    NativeCase,
    cpu_levels,
    native_session,
    needs_native,
    run_at_level,
    run_case,
)
from support.op_models import bare_model, op_model, run_ort, run_reference, session_of
from support.tolerances import BODY_EXPERTS, NATIVE_EXPERTS, NATIVE_EXPERTS_LEVELS

OP = "MoEDispatchSeparate"
HALVES = {"interleaved": 0, "transposed": 1}
PLAIN: dict[str, Any] = {"top_k": 2, "alpha": 1.0, "limit": float("inf"), "beta": 0.0}
CLAMPED: dict[str, Any] = {"top_k": 3, "alpha": 1.702, "limit": 7.0}


def halves_of(
    tokens: int, hidden: int, width: int, experts: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Return the inputs of MoEDispatch by rows, gates before ups."""
    packed = mxfp4_inputs(tokens, hidden, width, experts, seed=tokens)
    return laid_out(dense_inputs(packed, dtype), **HALVES)


@pytest.mark.parametrize("attributes", [PLAIN, CLAMPED, {**PLAIN, "normalize": 0}])
def test_definition_is_that_of_stacked_experts(attributes: dict[str, Any]) -> None:
    halves = halves_of(9, 64, 32, experts=5)
    stacked = {**halves, "gate_up_bias": None, "down_bias": None}
    expected = torch.ops.gptoss.moe_dispatch(*stacked.values(), **attributes, **HALVES)
    found = torch.ops.gptoss.moe_dispatch_separate(*listed(separated(halves)), **attributes)
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_definition_is_qwens() -> None:
    config = Qwen3MoeConfig(
        hidden_size=32, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=3
    )
    block: Any = Qwen3MoeSparseMoeBlock(config).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    hidden = torch.randn(19, 32, generator=torch.Generator().manual_seed(2))
    halves = {
        "hidden": hidden,
        "router_logits": F.linear(hidden, block.gate.weight),
        "gate_up": block.experts.gate_up_proj,
        "down": block.experts.down_proj,
    }
    attributes = {**PLAIN, "top_k": 3, "normalize": int(config.norm_topk_prob)}
    found = torch.ops.gptoss.moe_dispatch_separate(*listed(separated(halves)), **attributes)
    expected = block(hidden.unsqueeze(0))
    expected = (expected[0] if isinstance(expected, tuple) else expected).view_as(hidden)
    assert relative_error(found, expected) < BODY_EXPERTS


@pytest.mark.parametrize("experts", [3, 5])
@pytest.mark.parametrize("attributes", [PLAIN, CLAMPED, {**PLAIN, "normalize": 0}])
def test_body_equals_the_definition(attributes: dict[str, Any], experts: int) -> None:
    for tokens in (1, 11):
        inputs = separated(halves_of(tokens, 64, 32, experts))
        inputs["router_logits"] = inputs["router_logits"].round()  # ties
        expected = torch.ops.gptoss.moe_dispatch_separate(*listed(inputs), **attributes)
        model = op_model(OP, inputs, attributes)
        assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
        assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


@pytest.mark.parametrize("dtype", DTYPES)
def test_body_reads_each_type_of_weight(dtype: torch.dtype) -> None:
    inputs = separated(halves_of(4, 64, 32, 3, dtype))
    found = run_ort(session_of(op_model(OP, inputs, PLAIN)), inputs)[0]
    assert relative_error(found, definition(inputs, **PLAIN)) < BODY_EXPERTS


def test_nothing_is_computed_of_the_matrices_at_open(tmp_path: Path) -> None:
    """Whatever ONNX Runtime computes while it opens, it would do for all experts and keep."""
    inputs = separated(halves_of(1, 64, 32, 4, torch.float16))
    model = op_model(OP, inputs, PLAIN)
    matrices = list(inputs)[2:]
    del model.graph.input[2:]
    for name in matrices:
        model.graph.initializer.append(onnx.numpy_helper.from_array(inputs[name].numpy(), name))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kept = [x.name for x in weights_in(onnx.load(tmp_path / "optimized.onnx").graph)]
    assert sorted(kept) == sorted(matrices)


def weights_in(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Return the matrices among the initializers of a graph and of the graphs of its nodes."""
    found = [tensor for tensor in graph.initializer if len(tensor.dims) == 2]
    for node in graph.node:
        for attribute in node.attribute:
            found += weights_in(attribute.g)
    return found


def test_layers_of_different_numbers_of_experts_are_refused() -> None:
    uses = [Use(OP, {}, {}, 2 + 3 * experts) for experts in (4, 5)]
    with pytest.raises(InputError, match=f"{OP}: found nodes that need different portable bodies"):
        function_protos(uses)


REFUSED = [
    ({"up_1": (31, 64)}, "input 'up_1': found shape (31, 64), expected", "(32, 64) = (I, Hd)"),
    ({"down_2": (32, 64)}, "input 'down_2': found shape (32, 64), expected", "(64, 32) = (Hd, I)"),
    ({"gate_0": (32,)}, "input 'gate_0': found shape (32), expected", "(I, Hd)"),
    ({"router_logits": (3, 2)}, "matrices, expected", "E"),
    ({"router_logits": (2, 3)}, "input 'router_logits': found shape (2, 3), expected", "(N, E)"),
]


def misshapen(changes: dict[str, tuple[int, ...]]) -> Inputs:
    inputs = separated(halves_of(3, 64, 32, experts=3))
    return inputs | {name: torch.zeros(shape) for name, shape in changes.items()}


@pytest.mark.parametrize(("changes", "found", "expected"), REFUSED)
def test_definition_refuses(changes: Any, found: str, expected: str) -> None:
    inputs = misshapen(changes)
    matrices = list(inputs.values())[2:]
    lists = [matrices[:3], matrices[3:6], matrices[6:]]
    top_k = min(3, inputs["router_logits"].shape[-1])
    call = (inputs["hidden"], inputs["router_logits"], *lists)
    with pytest.raises(InputError) as refused:
        torch.ops.gptoss.moe_dispatch_separate(*call, **{**PLAIN, "top_k": top_k})
    # a tuple of one is printed with a comma here
    assert found in str(refused.value).replace("(32,)", "(32)")
    assert expected in str(refused.value)


@needs_native
@pytest.mark.parametrize(("changes", "found", "expected"), REFUSED)
def test_kernel_refuses(changes: Any, found: str, expected: str) -> None:
    inputs = misshapen(changes)
    top_k = min(3, inputs["router_logits"].shape[-1])
    model = bare_model(OP, inputs, {**PLAIN, "top_k": top_k})
    with pytest.raises(Exception, match=re.escape(found)) as refused:
        run_ort(native_session(model.SerializeToString()), inputs)
    assert expected in str(refused.value)


@needs_native
def test_kernel_refuses_an_activation() -> None:
    inputs = separated(halves_of(3, 64, 32, experts=3))
    model = bare_model(OP, inputs, {**PLAIN, "activation": "relu"})
    words = "attribute 'activation': found 'relu', expected none, or swiglu"
    with pytest.raises(Exception, match=re.escape(words)):
        native_session(model.SerializeToString())


@needs_native
def test_every_cpu_level_equals_definition_and_scalar(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], Inputs, NativeCase]] = []
    for number, (attributes, mode) in enumerate(product((PLAIN, CLAMPED), MODES)):
        for tokens, hidden, width in ((1, 320, 96), (7, 96, 160), (130, 64, 96)):
            attributes = {**attributes, "normalize": number % 2}
            inputs = separated(halves_of(tokens, hidden, width, 4, DTYPES[number % 3]))
            cases.append((mode, attributes, inputs, native_case(inputs, mode, **attributes)))
    outputs = {
        level: run_at_level(level, [case for *_, case in cases], tmp_path) for level in cpu_levels()
    }
    for level, found in outputs.items():
        for (mode, attributes, inputs, _), (output,), (scalar,) in zip(
            cases, found, outputs["scalar"], strict=True
        ):
            named = (level, mode, attributes, inputs["hidden"].shape)
            error = error_of(output, inputs, **attributes)
            assert error < NATIVE_EXPERTS[mode], named
            # a kernel may keep more than int8 asks
            finer = mode == "int8" and error < NATIVE_EXPERTS["bf16"]
            assert finer or relative_error(output, scalar) < NATIVE_EXPERTS_LEVELS[mode], named


@needs_native
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_gives_the_bits_of_stacked_experts(mode: str, dtype: torch.dtype) -> None:
    """The same rows meet the same tokens in the same pieces, wherever they lie."""
    for tokens in (1, 8, 60):
        halves = halves_of(tokens, 96, 288, 5, dtype)
        stacked = {**halves, "gate_up_bias": None, "down_bias": None}
        (expected,) = run_case(native_case(stacked, mode, **CLAMPED, **HALVES))
        (found,) = run_case(native_case(separated(halves), mode, threads=3, **CLAMPED))
        assert torch.equal(found, expected)
