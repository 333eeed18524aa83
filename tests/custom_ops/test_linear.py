"""Linear: the definition against GPT-2's Conv1D and float64, its bodies against the definition."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from transformers.pytorch_utils import Conv1D

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops import linear as _linear  # noqa: F401 - it defines the op
from gptoss_onnx.custom_ops.bodies import OPSET_VERSION, Use, function_protos
from support.moe_inputs import relative_error
from support.op_models import IR_VERSION, op_model, run_ort, run_reference, session_of
from support.tolerances import BODY_EXPERTS


def linear_inputs(dtype: torch.dtype, with_bias: bool) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    return {
        "x": torch.randn(7, 40, generator=generator),
        "weight": torch.randn(11, 40, generator=generator).to(dtype),
        "bias": torch.randn(11, generator=generator) if with_bias else None,
    }


def test_transposed_is_gpt2s_conv1d() -> None:
    theirs = Conv1D(nf=11, nx=40)
    torch.nn.init.normal_(theirs.bias, generator=torch.Generator().manual_seed(4))
    x = linear_inputs(torch.float32, False)["x"]
    with torch.inference_mode():
        found = torch.ops.gptoss.linear(x, theirs.weight, theirs.bias, True)
        assert relative_error(found, theirs(x)) < BODY_EXPERTS
        assert relative_error(found, torch.addmm(theirs.bias, x, theirs.weight)) < BODY_EXPERTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_body_equals_definition(dtype: torch.dtype, with_bias: bool, transposed: bool) -> None:
    inputs = linear_inputs(dtype, with_bias)
    rows = inputs["weight"]
    if transposed:
        inputs["weight"] = rows.T.contiguous()
    expected = torch.ops.gptoss.linear(*inputs.values(), transposed)
    exact = inputs["x"].double() @ rows.double().T + (inputs["bias"].double() if with_bias else 0)
    model = op_model("Linear", inputs, {"transposed": transposed})
    assert relative_error(expected.double(), exact) < BODY_EXPERTS
    assert relative_error(run_ort(session_of(model), inputs)[0], expected) < BODY_EXPERTS
    if dtype != torch.bfloat16:
        assert relative_error(run_reference(model, inputs)[0], expected) < BODY_EXPERTS


def test_one_graph_may_hold_both_layouts() -> None:
    """As GPT-2's: Conv1D in its layers, and a Linear as the head, whose weight is the embedding."""
    shapes = {"x": (3, 4), "conv": (4, 5), "rows": (6, 5)}
    arrays = {
        name: np.random.default_rng(0).standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Linear", ["x", "conv", ""], ["y"], domain=DOMAIN, transposed=1),
        helper.make_node("Linear", ["y", "rows", ""], ["z"], domain=DOMAIN),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "both",
        [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [value("z", onnx.TensorProto.FLOAT, (3, 6))],
    )
    uses = [
        Use("Linear", {name: shapes[name] for name in ("x", "conv")}, {"transposed": 1}),
        Use("Linear", {"x": (3, 5), "weight": (6, 5)}, {}),
    ]
    imports = [helper.make_opsetid("", OPSET_VERSION), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    protos = function_protos(uses)
    assert protos == function_protos(uses[::-1])
    model = helper.make_model(graph, functions=protos, opset_imports=imports, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    expected = arrays["x"] @ arrays["conv"] @ arrays["rows"].T
    (found,) = session_of(model).run(None, arrays)
    assert relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < BODY_EXPERTS
