"""One-node ONNX models of the `ai.gptoss` ops, run through their portable bodies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops.bodies import OPSET_VERSION, Use, function_protos
from gptoss_onnx.custom_ops.schemas import SIGNATURES, Operand

IR_VERSION = 11
_ELEMENT_TYPES = {
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.bfloat16: onnx.TensorProto.BFLOAT16,
    torch.uint8: onnx.TensorProto.UINT8,
    torch.int8: onnx.TensorProto.INT8,
    torch.int32: onnx.TensorProto.INT32,
    torch.int64: onnx.TensorProto.INT64,
}
_OUTPUT_RANKS = {
    "SinkAttention": (3, 4, 4),
    "MoEDispatch": (2,),
    "MoEDispatchMXFP4": (2,),
    "MoEDispatchSeparate": (2,),
    "Linear": (2,),
    "LinearInt8": (2,),
    "LinearPacked": (2,),
}


def op_model(
    name: str,
    inputs: Mapping[str, torch.Tensor | None],
    attributes: Mapping[str, Any],
    body: bool = True,
) -> onnx.ModelProto:
    """Return a checked model of one op whose inputs have the dtypes of `inputs` and open shapes;
    None is omitted. Without its body it runs natively or not at all.
    """
    signature = SIGNATURES[name]
    operands = operands_of(name, inputs)
    stated = signature.stated(attributes)
    shapes = {n: tuple(t.shape) for n, t in inputs.items() if t is not None}
    use = Use(name, shapes, stated, len(operands))
    functions = function_protos([use])
    # onnx.reference wants as many names as the function has inputs
    names = [
        operand.name if use.has(operand.name) else ""
        for operand in operands[: len(functions[-1].input)]
    ]
    node = helper.make_node(
        name, names, [operand.name for operand in signature.outputs], domain=DOMAIN, **stated
    )
    types = {
        operand.group: _ELEMENT_TYPES[tensor.dtype]
        for operand in operands
        if (tensor := inputs.get(operand.name)) is not None
    }
    graph = helper.make_graph(
        [node],
        name,
        [
            helper.make_tensor_value_info(
                operand.name, types[operand.group], [None] * inputs[operand.name].dim()
            )
            for operand in operands
            if operand.name in names
        ],
        [
            helper.make_tensor_value_info(operand.name, types[operand.group], [None] * rank)
            for operand, rank in zip(signature.outputs, _OUTPUT_RANKS[name], strict=True)
        ],
    )
    imports = [helper.make_opsetid("", OPSET_VERSION), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(
        graph, functions=functions if body else [], opset_imports=imports, ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def operands_of(name: str, inputs: Mapping[str, torch.Tensor | None]) -> list[Operand]:
    """Return the op's inputs; a variadic one as often as there are tensors, under their names."""
    declared = SIGNATURES[name].inputs
    if not declared[-1].variadic:
        return list(declared)
    *others, last = declared
    return others + [replace(last, name=key) for key in list(inputs)[len(others) :]]


def bare_model(
    name: str, inputs: Mapping[str, torch.Tensor | None], attributes: Mapping[str, Any]
) -> onnx.ModelProto:
    """Return an unchecked model of one op, without body, whose inputs may have any rank: for what
    the kernels must refuse.
    """
    signature = SIGNATURES[name]
    there = {key: tensor for key, tensor in inputs.items() if tensor is not None}
    operands = operands_of(name, inputs)
    names = [operand.name if operand.name in there else "" for operand in operands]
    outputs = [operand.name for operand in signature.outputs]
    node = helper.make_node(name, names, outputs, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        name,
        [
            helper.make_tensor_value_info(key, _ELEMENT_TYPES[tensor.dtype], None)
            for key, tensor in there.items()
        ],
        [helper.make_tensor_value_info(outputs[0], onnx.TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", OPSET_VERSION), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_ort(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, torch.Tensor | None]
) -> list[torch.Tensor]:
    """Run a one-op session; bfloat16 goes in and out as its bits."""
    binding = session.io_binding()
    kept = []
    for name, tensor in inputs.items():
        if tensor is not None:
            kept.append(ort_value(tensor))
            binding.bind_ortvalue_input(name, kept[-1])
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    return [_from_ort(value) for value in binding.get_outputs()]


def run_reference(
    model: onnx.ModelProto, inputs: Mapping[str, torch.Tensor | None]
) -> list[torch.Tensor]:
    """Run the model in onnx.reference, where a bfloat16 is one of ml_dtypes."""
    feeds = {name: _numpy(tensor) for name, tensor in inputs.items() if tensor is not None}
    return [
        torch.from_numpy(np.asarray(array)) for array in ReferenceEvaluator(model).run(None, feeds)
    ]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def ort_value(tensor: torch.Tensor) -> onnxruntime.OrtValue:
    """Return the tensor as ONNX Runtime takes it; it may share the tensor's memory."""
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        bits = tensor.view(torch.uint16).numpy()
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            bits, onnx.TensorProto.BFLOAT16
        )
    return onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy())


def _from_ort(value: onnxruntime.OrtValue) -> torch.Tensor:
    if value.element_type() == onnx.TensorProto.BFLOAT16:
        return torch.utils.dlpack.from_dlpack(value._ortvalue.to_dlpack())
    return torch.from_numpy(value.numpy().copy())
