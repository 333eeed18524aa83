"""Graphs as other exporters write them: a small Mistral with caches that grow, right or wrong in
one thing.

B batch, S columns, P cached columns, T = P + S, H heads, K kv heads, D head dim.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from gptoss_onnx.reference import DecoderConfig
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

OPSET = 23  # has RMSNormalization, RotaryEmbedding and Attention


@dataclass(frozen=True)
class Flavour:
    """How a graph is written; the default is right.

    Attributes:
        positions: it takes position_ids; else it takes them from the columns, padding included.
        mask: it takes attention_mask.
        heeds_mask: it hides what the mask hides.
        window: the window's size is off by so many tokens.
        batch: B, a number where the graph fixes it.
        last: logits of the last position alone.
        gqa: attention is GroupQueryAttention, which counts tokens from the mask.
        windowed: with it, caches are as long as the window (`sliding_window_cache`).
        past: it takes caches.
        dtype: of the caches; what is computed stays float32.
    """

    positions: bool = True
    mask: bool = True
    heeds_mask: bool = True
    window: int = 0
    batch: int | str = "batch"
    last: bool = False
    gqa: bool = False
    windowed: bool = False
    past: bool = True
    dtype: int = TensorProto.FLOAT


def write_checkpoint(folder: Path, seed: int = 5) -> Path:
    """Write the checkpoint that the graphs are of; returns its folder."""
    make_checkpoint(folder, tiny_document("mistral", num_hidden_layers=2), seed=seed, dtype="F32")
    return folder


def write_graph(
    checkpoint: Path, config: DecoderConfig, path: Path, flavour: Flavour | None = None
) -> Path:
    """Write the ONNX file of a checkpoint; returns its path."""
    flavour = flavour or Flavour()
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = load_file(checkpoint / "model.safetensors")
    model = _Writer(config, weights, flavour).model()
    path.write_bytes(model.SerializeToString())
    return path


class _Writer:
    """Collects nodes and constants; every method returns the name of what it computes."""

    def __init__(
        self, config: DecoderConfig, weights: dict[str, NDArray[Any]], flavour: Flavour
    ) -> None:
        self.config, self.weights, self.flavour = config, weights, flavour
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.attention = config.layers[0].attention

    def model(self) -> onnx.ModelProto:
        flavour, layers = self.flavour, range(len(self.config.layers))
        hidden = self.op("Gather", self.weight("model.embed_tokens.weight"), "input_ids")
        self.prepare()
        for layer in layers:
            hidden = self.layer(layer, hidden)
        hidden = self.norm("model.norm", hidden)
        if flavour.last:
            hidden = self.op("Slice", hidden, *map(self.integers, ([-1], [2**31], [1])))
        self.op("MatMul", hidden, self.weight("lm_head.weight", turn=True), out="logits")
        batch, kv = flavour.batch, (self.attention.kv_heads, self.attention.head_dim)
        ids = TensorProto.INT64
        inputs = [helper.make_tensor_value_info("input_ids", ids, [batch, "new"])]
        if flavour.mask:
            inputs += [helper.make_tensor_value_info("attention_mask", ids, [batch, "total"])]
        if flavour.positions:
            inputs += [helper.make_tensor_value_info("position_ids", ids, [batch, "new"])]
        outputs = [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, [batch, "some", self.config.vocab_size]
            )
        ]
        for layer in layers:
            for kind in ("key", "value"):
                shape = [batch, kv[0], "past", kv[1]]
                past = f"past_key_values.{layer}.{kind}"
                if flavour.past:
                    inputs += [helper.make_tensor_value_info(past, flavour.dtype, shape)]
                shape = [batch, kv[0], "kept", kv[1]]
                present = f"present.{layer}.{kind}"
                outputs += [helper.make_tensor_value_info(present, flavour.dtype, shape)]
        graph = helper.make_graph(self.nodes, "tiny", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)

    def prepare(self) -> None:
        """Compute what all layers share: positions, cosines and sines, and the mask."""
        new = self.op("Shape", "input_ids", start=1, end=2)
        zero, one = self.scalar(0), self.scalar(1)
        if self.flavour.past:
            past = self.op("Shape", "past_key_values.0.key", start=2, end=3)
        else:
            past = self.integers([0])
        if self.flavour.windowed:  # the cache's size says nothing of the tokens
            past = self.op("Sub", self.op("Shape", "attention_mask", start=1, end=2), new)
        total = self.op("Squeeze", self.op("Add", past, new))
        keys = self.op("Range", zero, total, one)  # (T)
        queries = self.op("Range", self.op("Squeeze", past), total, one)  # (S)
        if self.flavour.positions:
            self.positions = "position_ids"
        else:
            rows = self.op("Shape", "input_ids")
            self.positions = self.op("Expand", queries, rows)
        longest, half = self.config.longest, self.attention.head_dim // 2
        rope = self.attention.rope
        assert rope is not None
        angles = np.outer(np.arange(longest), rope.theta ** (-np.arange(half) / half))
        self.rope = [
            self.constant(table.astype(np.float32)) for table in (np.cos(angles), np.sin(angles))
        ]
        if self.flavour.gqa:
            count = self.op("ReduceSum", "attention_mask", self.integers([1]), keepdims=0)
            self.seqlens = self.op("Cast", self.op("Sub", count, self.integers([1])), to=6)
            self.total = self.op("Cast", total, to=6)
            return
        column = self.op("Unsqueeze", queries, self.integers([1]))  # (S, 1)
        ahead = self.op("Sub", column, keys)  # (S, T): how far back a key lies
        window = self.scalar(self.attention.window + self.flavour.window)
        visible = self.op(
            "And", self.op("Less", ahead, window), self.op("Less", self.scalar(-1), ahead)
        )
        if self.flavour.mask and self.flavour.heeds_mask:
            mask = self.op("Cast", "attention_mask", to=TensorProto.BOOL)
            mask = self.op("Unsqueeze", mask, self.integers([1, 2]))  # (B, 1, 1, T)
            # A query of padding sees itself, so that no softmax is over nothing.
            itself = self.op("Equal", ahead, zero)
            visible = self.op("Or", self.op("And", mask, visible), itself)
        self.visible = visible

    def layer(self, index: int, hidden: str) -> str:
        where = f"model.layers.{index}"
        normed = self.norm(f"{where}.input_layernorm", hidden)
        query, key, value = (
            self.linear(f"{where}.self_attn.{name}_proj", normed) for name in "qkv"
        )
        attention = self.attention
        query, key = (
            self.op("RotaryEmbedding", it, *self.rope, self.positions, num_heads=heads)
            for it, heads in ((query, attention.heads), (key, attention.kv_heads))
        )
        attended = self.attend(index, query, key, value)
        hidden = self.op("Add", hidden, self.linear(f"{where}.self_attn.o_proj", attended))
        normed = self.norm(f"{where}.post_attention_layernorm", hidden)
        gate, up = (self.linear(f"{where}.mlp.{name}_proj", normed) for name in ("gate", "up"))
        silu = self.op("Mul", gate, self.op("Sigmoid", gate))
        down = self.linear(f"{where}.mlp.down_proj", self.op("Mul", silu, up))
        return self.op("Add", hidden, down)

    def attend(self, index: int, query: str, key: str, value: str) -> str:
        attention, flavour = self.attention, self.flavour
        pasts = [f"past_key_values.{index}.{kind}" for kind in ("key", "value")]
        presents = [f"present.{index}.{kind}" for kind in ("key", "value")]
        if flavour.gqa:
            return self.op(
                "GroupQueryAttention",
                *(query, key, value, *pasts, self.seqlens, self.total),
                more=presents,
                domain="com.microsoft",
                num_heads=attention.heads,
                kv_num_heads=attention.kv_heads,
                local_window_size=attention.window + flavour.window,
                **({"sliding_window_cache": 1} if flavour.windowed else {}),
            )
        narrow = flavour.dtype != TensorProto.FLOAT
        if narrow:
            pasts = [self.op("Cast", name, to=TensorProto.FLOAT) for name in pasts]
        made = [f"wide.{name}" for name in presents] if narrow else presents
        found = self.op(
            "Attention",
            *(query, key, value, self.visible, *(pasts if flavour.past else ())),
            more=made,
            q_num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
        )
        if narrow:
            for name, present in zip(made, presents, strict=True):
                self.op("Cast", name, out=present, to=flavour.dtype)
        return found

    def norm(self, name: str, hidden: str) -> str:
        eps = self.config.norm.eps
        return self.op("RMSNormalization", hidden, self.weight(f"{name}.weight"), epsilon=eps)

    def linear(self, name: str, hidden: str) -> str:
        return self.op("MatMul", hidden, self.weight(f"{name}.weight", turn=True))

    def weight(self, name: str, turn: bool = False) -> str:
        array = self.weights[name]
        return self.constant(np.ascontiguousarray(array.T if turn else array), name)

    def scalar(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def integers(self, values: list[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def constant(self, array: NDArray[Any], name: str = "") -> str:
        name = name or f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(
        self, kind: str, *inputs: str, out: str = "", more: list[str] | None = None, **rest: Any
    ) -> str:
        out = out or f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out, *(more or ())], name=out, **rest))
        return out
