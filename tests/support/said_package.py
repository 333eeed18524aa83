"""A package that says what a script wants, so that streams and chats are tested end to end without
weights.

The graph keeps the ids of all tokens in its KV cache. The next token is looked up by a number that
all of them and their places give; after a history that no script has, it is `lost`. So a wrong
cache shows at once.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from gptoss_onnx.manifest import CacheLayer, TensorSpec
from support.fake_package import Nodes, manifest, write_bias

LONGEST = 4096
_LAYER = CacheLayer(
    0,
    0,
    1,
    1,
    "past_key_values.0.key",
    "past_key_values.0.value",
    "present.0.key",
    "present.0.value",
)


def write_said_package(
    folder: Path,
    tokenizer: Path,
    scripts: Iterable[tuple[Sequence[int], Sequence[int]]],
    vocab: int,
    lost: int = 0,
    ends: int | list[int] | None = None,
) -> Path:
    """Write a package with the tokenizer files of a folder, which answers each prompt by what its
    script says.

    `scripts` are prompts and answers as token ids; `ends` are the tokens that end a text,
    `lost` what comes after a script's end and everywhere else.
    """
    folder.mkdir(parents=True)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder / file.name)
    write_bias(folder / "weights.safetensors", (0.0,) * 18)
    said_after: dict[int, int] = {}
    taken: dict[int, tuple[int, ...]] = {}
    for prompt, said in scripts:
        for count, token in enumerate(said):
            history = (*prompt, *said[:count])
            key = _key(history)
            assert taken.setdefault(key, history) == history, (
                "two histories share a number: change a script"
            )
            said_after[key] = token
    (folder / "model.onnx").write_bytes(_graph(said_after, lost, vocab).SerializeToString())
    plain = manifest((_LAYER,), "float32", folder, None)
    logits = TensorSpec("logits", "float32", ("batch", "kept", vocab))
    replace(
        plain,
        eos_tokens=() if ends is None else tuple(ends) if isinstance(ends, list) else (ends,),
        vocab_size=vocab,
        longest=LONGEST,
        outputs=(logits,),
    ).write(folder)
    return folder


def _key(history: Sequence[int]) -> int:
    return sum((token + 1) * (place * place + 7) for place, token in enumerate(history))


def _graph(said_after: dict[int, int], lost: int, vocab: int) -> onnx.ModelProto:
    """Return the graph; K histories are known."""
    g = Nodes()
    one, zero, middle = g.constant([1]), g.constant(0), g.constant([1, 3])
    new = g.range_to(g.add("Shape", "input_ids", start=1, end=2))
    positions = g.add("Add", g.add("Unsqueeze", "past_lengths", one), new)  # (B, S)
    # (B, 1, S, 1)
    ids = g.add("Cast", g.add("Unsqueeze", "input_ids", middle), to=TensorProto.FLOAT)
    for side in ("key", "value"):
        g.add(
            "TensorScatter",
            f"past_key_values.0.{side}",
            ids,
            "past_lengths",
            output=f"present.0.{side}",
            axis=2,
            mode="circular",
        )
    slots = g.range_to(g.add("Shape", "past_key_values.0.key", start=2, end=3))  # (C)
    weight = g.add("Add", g.add("Mul", slots, slots), g.constant(7))
    held = g.add("Cast", g.add("Squeeze", "present.0.key", middle), to=TensorProto.INT64)  # (B, C)
    terms = g.add("Mul", g.add("Add", held, g.constant(1)), weight)  # (B, C)
    seen = g.add("LessOrEqual", slots, g.add("Unsqueeze", positions, g.constant([2])))  # (B, S, C)
    shown = g.add("Where", seen, g.add("Unsqueeze", terms, one), zero)
    key = g.add("ReduceSum", shown, g.constant([2]), keepdims=0)  # (B, S)
    last = g.add("Unsqueeze", "logit_positions", g.constant([2]))
    # (B, kept, 1)
    here = g.add("Unsqueeze", g.add("GatherND", key, last, batch_dims=1), g.constant([2]))
    known = g.add("Equal", here, g.constant(list(said_after)))  # (B, kept, K)
    found = g.add("Cast", known, to=TensorProto.INT64)
    # One more than the token, so that 0 says that no history is this one.
    said = g.add("Mul", found, g.constant([token + 1 for token in said_after.values()]))
    said = g.add("ReduceMax", said, g.constant([2]), keepdims=0)  # (B, kept)
    said = g.add(
        "Where", g.add("Equal", said, zero), g.constant(lost), g.add("Sub", said, g.constant(1))
    )
    g.add("OneHot", said, g.constant(vocab), g.constant([0.0, 1.0], np.float32), output="logits")

    value = helper.make_tensor_value_info
    shapes: dict[str, list[str | int | None]] = {
        "input_ids": ["B", "S"],
        "past_lengths": ["B"],
        "new_lengths": ["B"],
        "logit_positions": ["B", "kept"],
    }
    cache: list[str | int | None] = ["B", 1, "C", 1]
    inputs = [value(name, TensorProto.INT64, shape) for name, shape in shapes.items()]
    inputs += [
        value(f"past_key_values.0.{side}", TensorProto.FLOAT, cache) for side in ("key", "value")
    ]
    outputs = [value("logits", TensorProto.FLOAT, ["B", "kept", vocab])]
    outputs += [value(f"present.0.{side}", TensorProto.FLOAT, cache) for side in ("key", "value")]
    graph = helper.make_graph(g.nodes, "said", inputs, outputs, g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
