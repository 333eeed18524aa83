"""The numbers of the fields that this project reads of an ONNX file.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""


class ModelField:
    """Of ModelProto."""

    IR_VERSION, GRAPH, OPSET_IMPORT, TRAINING_INFO, FUNCTIONS = 1, 7, 8, 20, 25


class GraphField:
    """Of GraphProto."""

    NODE, NAME, INITIALIZER, INPUT, OUTPUT, SPARSE_INITIALIZER = 1, 2, 5, 11, 12, 15


class NodeField:
    """Of NodeProto."""

    INPUT, OUTPUT, NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7


class AttributeField:
    """Of AttributeProto."""

    NAME, INTEGER, TEXT, TENSOR, GRAPH, TENSORS, GRAPHS = 1, 3, 4, 5, 6, 10, 11
    SPARSE, SPARSES = 22, 23


class TensorField:
    """Of TensorProto."""

    DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14


class FunctionField:
    """Of FunctionProto."""

    NODE, ATTRIBUTE = 7, 11
