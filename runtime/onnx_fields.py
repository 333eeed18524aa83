"""The numbers of the fields that this project reads of an ONNX file.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""


class ModelField:
    """Of ModelProto."""

    GRAPH, TRAINING_INFO, FUNCTIONS = 7, 20, 25


class GraphField:
    """Of GraphProto."""

    NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15


class NodeField:
    """Of NodeProto."""

    INPUT, OUTPUT, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7


class AttributeField:
    """Of AttributeProto."""

    NAME, INTEGER, TENSOR, GRAPH, TENSORS, GRAPHS, SPARSE, SPARSES = 1, 3, 5, 6, 10, 11, 22, 23


class TensorField:
    """Of TensorProto."""

    DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14


class FunctionField:
    """Of FunctionProto."""

    NODE, ATTRIBUTE = 7, 11
