"""A package that says what the last letter asks for, so that servers are tested without weights.

The graph keeps the ids of all tokens in its KV cache. The last letter (`scripted_tokenizer.letter`)
that a token sees names a script, and how far back it is the place in it. So it does not matter what
stands before the letter: system messages, dates, tools, turns; nor which row, slot or batch it is.
What stands between the letter and the answer, such as `<|end|><|start|>assistant`, is the beginning
of each script.

B batch, S new tokens, C slots, K scripts, T longest script, V vocabulary.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from gptoss_onnx.manifest import CacheLayer, TensorSpec
from gptoss_onnx.runtime import Tokenizer
from support.fake_package import Nodes, manifest, write_bias
from support.scripted_tokenizer import letter, letter_token, vocabulary, write_scripted_tokenizer

LONGEST = 8192  # tokens of a sequence: a prompt with tools in the small tokenizer has thousands
END = "<|return|>"
HARMONY_SUFFIX = "<|end|><|start|>assistant"
SURE = 40.0  # the logit of what is said; others are 0, so that sampling says it too
_CACHE = ("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value")
_LAYER = CacheLayer(0, 0, 1, 1, *_CACHE)

__all__ = ["END", "HARMONY_SUFFIX", "LONGEST", "letter", "write_scripted_package"]


def write_scripted_package(
    folder: Path,
    scripts: Sequence[str | Sequence[int]],
    suffix: str = HARMONY_SUFFIX,
    ends: Sequence[str] = (END,),
    **tokenizer_options: str,
) -> Path:
    """Write a package with the small harmony tokenizer; a message that ends with `letter(k)` is
    answered by `scripts[k]`.

    Scripts are texts, in which control tokens count, or token ids. `suffix` is what a chat template
    writes between the end of the last message and the answer; `""` for prompts of plain text. After
    a script's end, and where no letter is seen, the model says `<|return|>`. `ends` are the
    package's end tokens. `tokenizer_options` may hold a `template`.
    """
    folder.mkdir(parents=True)
    write_scripted_tokenizer(folder, len(scripts), **tokenizer_options)
    tokenizer = Tokenizer.open(folder)
    lost = tokenizer.special_tokens[END]
    between = tokenizer.encode(suffix)
    said = [
        between + (tokenizer.encode(script) if isinstance(script, str) else list(script))
        for script in scripts
    ]
    letters = range(letter_token(0), letter_token(len(scripts)))
    assert not any(token in letters for tokens in said for token in tokens)
    write_bias(folder / "weights.safetensors", (0.0,) * 18)
    vocab = vocabulary(len(scripts))
    (folder / "model.onnx").write_bytes(_graph(said, lost, vocab).SerializeToString())
    plain = manifest((_LAYER,), "float32", folder, None)
    replace(
        plain,
        eos_tokens=tuple(tokenizer.special_tokens[name] for name in ends),
        vocab_size=vocab,
        longest=LONGEST,
        outputs=(TensorSpec("logits", "float32", ("batch", "kept", vocab)),),
    ).write(folder)
    return folder


def copy_package(package: Path, folder: Path) -> Path:
    """Copy a package, to be changed."""
    return Path(shutil.copytree(package, folder))


def _graph(said: Sequence[Sequence[int]], lost: int, vocab: int) -> onnx.ModelProto:
    """Return the graph, whose table (K, T + 1) holds the scripts and what comes after them."""
    longest = max(len(tokens) for tokens in said)
    table = np.full((len(said), longest + 1), lost, np.int64)
    for script, tokens in enumerate(said):
        table[script, : len(tokens)] = tokens
    g = Nodes()
    one, zero = g.constant([1]), g.constant(0)
    new = g.range_to(g.add("Shape", "input_ids", start=1, end=2))
    positions = g.add("Add", g.add("Unsqueeze", "past_lengths", one), new)  # (B, S)
    slots = g.range_to(g.add("Shape", _CACHE[0], start=2, end=3))  # (C)
    held = _write_ids(g, slots)  # (B, C)
    script = g.add("Sub", held, g.constant(letter_token(0)))
    is_letter = g.add(
        "And",
        g.add("GreaterOrEqual", script, zero),
        g.add("Less", script, g.constant(len(said))),
    )
    at = g.add("Where", is_letter, slots, g.constant(-1))  # (B, C)
    wanted = g.add("Unsqueeze", "logit_positions", g.constant([2]))  # (B, kept, 1)
    now = g.add("GatherND", positions, wanted, batch_dims=1)  # (B, kept)
    near = g.add("LessOrEqual", slots, g.add("Unsqueeze", now, g.constant([2])))  # (B, kept, C)
    seen = g.add("Where", near, g.add("Unsqueeze", at, one), g.constant(-1))
    here = g.add("ReduceMax", seen, g.constant([2]), keepdims=0)  # (B, kept): the last letter's
    slot = g.add("Unsqueeze", g.add("Max", here, zero), g.constant([2]))
    which = g.add("Max", g.add("GatherND", script, slot, batch_dims=1), zero)
    which = g.add("Min", which, g.constant(len(said) - 1))
    place = g.add("Min", g.add("Sub", now, here), g.constant(longest))
    place = g.add("Where", g.add("Less", here, zero), g.constant(longest), place)
    pair = g.add(
        "Concat",
        g.add("Unsqueeze", which, g.constant([2])),
        g.add("Unsqueeze", place, g.constant([2])),
        axis=2,
    )
    token = g.add("GatherND", g.constant(table), pair)  # (B, kept)
    peak = g.constant([0.0, SURE], np.float32)
    g.add("OneHot", token, g.constant(vocab), peak, output="logits")
    return _model(g, vocab)


def _write_ids(g: Nodes, slots: str) -> str:
    """Add what puts the new ids into both buffers, padding left out, and return all ids (B, C)."""
    one, zero, middle = g.constant([1]), g.constant(0), g.constant([1, 3])
    column = g.add("Sub", slots, g.add("Unsqueeze", "past_lengths", one))  # (B, C): of `input_ids`
    is_new = g.add(
        "And",
        g.add("GreaterOrEqual", column, zero),
        g.add("Less", column, g.add("Unsqueeze", "new_lengths", one)),
    )
    most = g.add("Sub", g.add("Shape", "input_ids", start=1, end=2), one)
    inside = g.add("Min", g.add("Max", column, zero), most)
    ids = g.add("GatherElements", "input_ids", inside, axis=1)  # (B, C)
    new = g.add("Unsqueeze", g.add("Cast", ids, to=TensorProto.FLOAT), middle)  # (B, 1, C, 1)
    where = g.add("Unsqueeze", is_new, middle)
    for past, present in (_CACHE[::2], _CACHE[1::2]):
        g.add("Where", where, new, past, output=present)
    return g.add("Cast", g.add("Squeeze", _CACHE[2], middle), to=TensorProto.INT64)


def _model(g: Nodes, vocab: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    shapes: dict[str, list[str | int | None]] = {
        "input_ids": ["B", "S"],
        "past_lengths": ["B"],
        "new_lengths": ["B"],
        "logit_positions": ["B", "kept"],
    }
    cache: list[str | int | None] = ["B", 1, "C", 1]
    inputs = [value(name, TensorProto.INT64, shape) for name, shape in shapes.items()]
    inputs += [value(name, TensorProto.FLOAT, cache) for name in _CACHE[:2]]
    outputs = [value("logits", TensorProto.FLOAT, ["B", "kept", vocab])]
    outputs += [value(name, TensorProto.FLOAT, cache) for name in _CACHE[2:]]
    graph = helper.make_graph(g.nodes, "scripted", inputs, outputs, g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
