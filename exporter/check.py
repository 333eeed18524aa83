"""Run ONNX's own checker over a graph whose weights lie in hard-linked files, which the checker
refuses to open.
"""

import onnx

from gptoss_onnx.errors import PackageError


def check_onnx(model: onnx.ModelProto) -> None:
    """Check the structure, types and shapes of `model` with its external weights taken as graph
    inputs.

    Names, element types and shapes are checked as they would be; only the bytes are not opened.

    Raises:
        PackageError: the checker found a fault, which is a fault of the exporter.
    """
    stand_in = onnx.ModelProto()
    stand_in.CopyFrom(model)
    graph = stand_in.graph
    external = [
        tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    inline = [
        tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL
    ]
    del graph.initializer[:]
    graph.initializer.extend(inline)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in external
    )
    try:
        onnx.checker.check_model(stand_in, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PackageError(
            f"the exported graph fails onnx.checker: {error}; please report it"
        ) from error
