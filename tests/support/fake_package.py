"""A package whose logits spell out what its KV cache holds, so that cache bookkeeping is tested
exactly.

Each token writes two numbers into every layer: the key is 1 + id mod 6, the value 1 + its position.
The logits of a query are, for each of three layers, six sums: over the slots it sees, the values
beside each kind of key. A slot that was lost, never written or taken for another position changes a
sum. Sums are integers, so float32 holds them exactly.

B batch, S new tokens, C slots, V vocabulary.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gptoss_onnx.files import header_sha256
from gptoss_onnx.manifest import CacheLayer, Manifest, TensorSpec, WeightFile, Weights

KINDS = 6
LAYERS = 3
VOCAB = KINDS * LAYERS
LONGEST = 1 << 20  # tokens: more than any test has
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


def write_fake_package(
    folder: Path,
    windows: tuple[int, int, int] = (0, 3, 8),
    kv_dtype: str = "float32",
    bias: Sequence[float] = (0.0,) * VOCAB,
    weights_folder: Path | None = None,
    sign: float = 1.0,
    scale: int = 1,
    sinks: tuple[int, int, int] = (0, 0, 0),
    shapes: Sequence[tuple[int, int]] = ((1, 1), (1, 1), (1, 1)),
) -> Path:
    """Write the package.

    `bias` is added to all logits and lies in a safetensors file, in `weights_folder` if one says
    so. With `sign` −1 the sums count against a token, which makes greedy continuations that do not
    repeat themselves. The values are `scale` times the positions: large ones overflow a float16
    cache. `sinks` are the first tokens that each layer keeps, `shapes` its kv heads and head dim:
    every element of a slot holds the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = weights_folder or folder
    offset = write_bias(root / "weights.safetensors", bias)
    layers = tuple(
        CacheLayer(
            window,
            kept,
            *shapes[i],
            *(
                f"{side}.{i}.{part}"
                for side in ("past_key_values", "present")
                for part in ("key", "value")
            ),
        )
        for i, (window, kept) in enumerate(zip(windows, sinks, strict=True))
    )
    model = _graph(layers, _TYPES[kv_dtype], offset, sign, scale)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest(layers, kv_dtype, root, None if weights_folder is None else str(root)).write(folder)
    return folder


def expected_logits(
    tokens: Sequence[int],
    windows: Sequence[int],
    position: int,
    sinks: Sequence[int] = (0, 0, 0),
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the logits (V) after tokens[position] from a plain history."""
    sums = np.zeros((LAYERS, KINDS), np.float32)
    for layer, (window, kept) in enumerate(zip(windows, sinks, strict=True)):
        for seen in range(position + 1):
            if not window or seen < kept or position - seen < window - kept:
                sums[layer, tokens[seen] % KINDS] += seen + 1
    return sums.reshape(-1)


def manifest(
    layers: tuple[CacheLayer, ...], kv_dtype: str, root: Path, recorded_root: str | None
) -> Manifest:
    path = root / "weights.safetensors"
    stat = path.stat()
    entry = WeightFile(
        path.name, "checkpoint", stat.st_size, stat.st_mtime_ns, header_sha256(path), None
    )
    return Manifest(
        exporter="test",
        target="portable",
        onnxruntime="1.28",
        model={},
        vocab_size=VOCAB,
        longest=LONGEST,
        eos_tokens=(5,),
        graph="model.onnx",
        opset=24,
        inputs=(),
        outputs=(TensorSpec("logits", "float32", ("batch", "kept", VOCAB)),),
        kv_dtype=kv_dtype,
        cache=layers,
        ops=(),
        weights=Weights(
            "link" if recorded_root is None else "reference",
            recorded_root,
            "hf-dense",
            True,
            (entry,),
        ),
        rounded=(),
        tokenizer_files=(),
        lossy=(),
        unsupported=(),
    )


def write_bias(path: Path, bias: Sequence[float]) -> int:
    header = b'{"bias":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (VOCAB, 4 * VOCAB)
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        struct.pack("<Q", len(header)) + header + np.asarray(bias, np.float32).tobytes()
    )
    return 8 + len(header)


class Nodes:
    """Collects nodes; `add` returns the name of the node's one output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Any, dtype: type[np.generic] = np.int64) -> str:
        self.constants.append(
            onnx.numpy_helper.from_array(np.asarray(value, dtype), f"c{len(self.constants)}")
        )
        return self.constants[-1].name

    def range_to(self, end: str) -> str:
        return self.add("Range", self.constant(0), self.add("Squeeze", end), self.constant(1))


def _graph(
    layers: tuple[CacheLayer, ...], kv_type: int, bias_offset: int, sign: float, scale: int
) -> onnx.ModelProto:
    g = Nodes()
    one, middle = g.constant([1]), g.constant([1, 3])
    new = g.range_to(g.add("Shape", "input_ids", start=1, end=2))
    positions = g.add("Add", g.add("Unsqueeze", "past_lengths", one), new)  # (B, S)
    kind = g.add("Add", g.add("Mod", "input_ids", g.constant(KINDS)), one)
    keys = g.add("Cast", g.add("Unsqueeze", kind, middle), to=kv_type)  # (B, 1, S, 1)
    scaled = g.add("Mul", g.add("Add", positions, one), g.constant(scale))
    values = g.add("Cast", g.add("Unsqueeze", scaled, middle), to=kv_type)
    # (B, 1)
    last = g.add("Unsqueeze", g.add("Sub", g.add("Add", "past_lengths", "new_lengths"), one), one)
    sums = [_layer(g, layer, keys, values, positions, last) for layer in layers]
    signed = g.add("Mul", g.add("Concat", *sums, axis=2), g.constant(sign, np.float32))
    everything = g.add("Add", signed, "bias")  # (B, S, V)
    kept = g.add("Unsqueeze", "logit_positions", g.constant([2]))
    g.add("GatherND", everything, kept, output="logits", batch_dims=1)

    value = helper.make_tensor_value_info
    ids: list[tuple[str, list[str | int | None]]] = [
        ("input_ids", ["B", "S"]),
        ("past_lengths", ["B"]),
        ("new_lengths", ["B"]),
        ("logit_positions", ["B", "kept"]),
    ]
    inputs = [value(name, TensorProto.INT64, shape) for name, shape in ids]
    outputs = [value("logits", TensorProto.FLOAT, ["B", "kept", VOCAB])]
    for i, layer in enumerate(layers):
        shape: list[str | int | None] = ["B", layer.kv_heads, f"C{i}", layer.head_dim]
        inputs += [value(name, kv_type, shape) for name in (layer.past_key, layer.past_value)]
        outputs += [
            value(name, kv_type, shape) for name in (layer.present_key, layer.present_value)
        ]
    bias = onnx.TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[VOCAB])
    bias.data_location = TensorProto.EXTERNAL
    for key, entry in (
        ("location", "weights.safetensors"),
        ("offset", bias_offset),
        ("length", 4 * VOCAB),
    ):
        bias.external_data.add(key=key, value=str(entry))
    graph = helper.make_graph(g.nodes, "fake", inputs, outputs, [*g.constants, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)


def _layer(g: Nodes, layer: CacheLayer, keys: str, values: str, positions: str, last: str) -> str:
    """Add one layer, write first and read the cache alone, and return its sums (B, S, 6)."""
    capacity = g.add("Shape", layer.past_key, start=2, end=3)
    zero, kept = g.constant(0), g.constant(layer.sink_tokens)
    ring = g.add("Sub", capacity, kept)  # slots that are not kept
    # (B, 1, S, 1)
    at = g.add("Unsqueeze", _slots(g, positions, kept, ring), g.constant([1, 3]))
    shape = g.constant([1, layer.kv_heads, 1, layer.head_dim])
    at, keys, values = (g.add("Expand", name, shape) for name in (at, keys, values))  # (B, K, S, D)
    g.add("ScatterElements", layer.past_key, at, keys, output=layer.present_key, axis=2)
    g.add("ScatterElements", layer.past_value, at, values, output=layer.present_value, axis=2)
    slots = g.range_to(capacity)
    is_kept = g.add("Less", slots, kept)  # (C)
    held = g.add("Sub", last, g.add("Mod", g.add("Sub", last, slots), ring))  # (B, C)
    is_held = g.add("Or", is_kept, g.add("GreaterOrEqual", held, kept))
    held = g.add("Where", is_kept, slots, held)
    held, is_held = (g.add("Unsqueeze", name, g.constant([1])) for name in (held, is_held))
    distance = g.add("Sub", g.add("Unsqueeze", positions, g.constant([2])), held)  # (B, S, C)
    span = g.constant(layer.window - layer.sink_tokens if layer.window else 1 << 40)
    near = g.add("Or", is_kept, g.add("Less", distance, span))
    past = g.add("And", is_held, g.add("GreaterOrEqual", distance, zero))
    visible = g.add("And", near, past)
    stored = g.add("Unsqueeze", _of_slots(g, layer.present_value), g.constant([1]))  # (B, 1, C)
    seen = g.add("Where", visible, stored, g.constant(0, np.float32))  # (B, S, C)
    stored_keys = g.add("Unsqueeze", _of_slots(g, layer.present_key), g.constant([2]))
    # (B, C, 6)
    kinds = g.add("Equal", stored_keys, g.constant(np.arange(1, KINDS + 1), np.float32))
    return g.add("MatMul", seen, g.add("Cast", kinds, to=TensorProto.FLOAT))


def _of_slots(g: Nodes, buffer: str) -> str:
    """Add what each slot of a buffer (B, K, C, D) holds, (B, C)."""
    numbers = g.add("Cast", buffer, to=TensorProto.FLOAT)
    return g.add("ReduceMax", numbers, g.constant([1, 3]), keepdims=0)


def _slots(g: Nodes, positions: str, kept: str, ring: str) -> str:
    """Add where each column goes: the first ones to their own slots, the others round the ring."""
    around = g.add("Add", kept, g.add("Mod", g.add("Sub", positions, kept), ring))
    return g.add("Where", g.add("Less", positions, kept), positions, around)
