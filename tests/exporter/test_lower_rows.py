"""What graphs of target ort for ONNX Runtime 1.32 have so that rows of a batch may differ, and
those for 1.28 have not.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from gptoss_onnx.exporter import Package
from support.tolerances import PACKAGE_LOGITS


@pytest.fixture(scope="module")
def graph(ort_package: Package) -> onnx.GraphProto:
    return onnx.load(ort_package.folder / "model.onnx", load_external_data=False).graph


@pytest.fixture(scope="module")
def int8_graph(ort_int8_package: Package) -> onnx.GraphProto:
    return onnx.load(ort_int8_package.folder / "model.onnx", load_external_data=False).graph


def defaults_of(graph: onnx.GraphProto) -> dict[str, list[object]]:
    """Return the inputs after the caches, and what they are when they are left out."""
    names = [value.name for value in graph.input]
    caches = [f"past_key_values.{layer}.{part}" for layer in range(6) for part in ("key", "value")]
    assert names[:14] == ["input_ids", "attention_mask", *caches]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    return {name: onnx.numpy_helper.to_array(stored[name]).tolist() for name in names[14:]}


def test_inputs_and_outputs_are_those_of_onnxruntime_genai(
    graph: onnx.GraphProto, int8_graph: onnx.GraphProto
) -> None:
    assert defaults_of(int8_graph) == {"logit_positions": [[-1]]}
    by_row = {"new_lengths": [-1], "window_starts": [0]}
    assert defaults_of(graph) == {"logit_positions": [[-1]], **by_row}
    logits = next(value for value in graph.output if value.name == "logits")
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == [
        "batch",
        1,
        2048,
    ]


def test_attention_is_told_the_tokens_of_each_row_from_1_32_on(
    graph: onnx.GraphProto, int8_graph: onnx.GraphProto
) -> None:
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert {(len(node.input), node.input[16]) for node in nodes} == {
        (17, "lengths.new_int32.output")
    }
    last = ["window.last.output", "lengths.last_int32.output"]
    assert [node.input[5] for node in nodes] == 3 * last
    blanked = {node.input[1]: node.name for node in graph.node if node.op_type == "Where"}
    for node in nodes:
        assert blanked[node.output[0]] == f"{node.name}_tokens"
    assert {
        len(node.input) for node in int8_graph.node if node.op_type == "GroupQueryAttention"
    } == {12}


def test_every_node_for_rows_is_of_use(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    added = ("lengths", "logit_positions", "window", "columns")
    nodes = [node for node in graph.node if node.name.startswith(added)]
    assert len(nodes) > len(added)
    assert [node.name for node in nodes if node.output[0] not in read] == []


def test_masks_padded_on_the_right_say_the_tokens_of_each_row(ort_package: Package) -> None:
    """As onnxruntime-genai gives batches: zeros after the shorter prompt, ones from then on."""
    rows = [[5, 300, 17, 64, 9], [1200, 7]]
    padded = [rows[0], [*rows[1], 0, 0, 0]]
    first = [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    more = [[3], [8]]
    session = onnxruntime.InferenceSession(str(ort_package.folder / "model.onnx"))
    together = _two_calls(session, ort_package, padded, first, more)
    for row, ids in enumerate(rows):
        alone = _two_calls(session, ort_package, [ids], [[1] * len(ids)], [more[row]])
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[row], expected[0], atol=PACKAGE_LOGITS, rtol=0)


def _two_calls(
    session: onnxruntime.InferenceSession,
    package: Package,
    ids: list[list[int]],
    mask: list[list[int]],
    more: list[list[int]],
) -> list[NDArray[np.float32]]:
    """Return the logits after a prompt, and after one more token a row."""
    layers = package.manifest.cache
    caches = {}
    for layer in layers:
        shape = (len(ids), layer.kv_heads, layer.window or 64, layer.head_dim)
        caches |= {name: np.zeros(shape, np.float32) for name in (layer.past_key, layer.past_value)}
    grown = [[*row, 1] for row in mask]
    found = []
    for tokens, ones in ((ids, mask), (more, grown)):
        feeds = {"input_ids": np.array(tokens), "attention_mask": np.array(ones), **caches}
        outputs = dict(
            zip(
                [value.name for value in session.get_outputs()],
                session.run(None, feeds),
                strict=True,
            )
        )
        found.append(outputs["logits"])
        caches = {layer.past_key: outputs[layer.present_key] for layer in layers}
        caches |= {layer.past_value: outputs[layer.present_value] for layer in layers}
    return found
