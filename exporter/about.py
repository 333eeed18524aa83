"""Graph pass: what a model says about itself to people who open it, in Netron or with ONNX's tools.

Writes the texts of the model, of its graph, of the graph's inputs and outputs, and the model's
metadata. Leaves alone whatever computes. The same checkpoint and options always get the same texts:
there is no path, no time and no machine in them.
"""

from collections import Counter

import onnx_ir as ir

from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.weights import layout_of
from gptoss_onnx.manifest import FORMAT, FORMAT_VERSION, MANIFEST_NAME, Stage
from gptoss_onnx.reference import Checkpoint

_RUNS = {
    "portable": "Nodes of the domain ai.gptoss carry their bodies in standard ONNX ops, so that "
    "any ONNX runtime runs this file. Where libgptoss_ops is registered, its kernels run instead.",
    "openvino": "All nodes are standard ONNX ops.",
    "ort": "Nodes of the domain com.microsoft are those of every build of ONNX Runtime.",
}
_VALUES = {
    "input_ids": "Token ids of this call, each row padded on the right.",
    "attention_mask": "A one for each token of a row, cached or new, then zeros.",
    "past_lengths": "How many tokens of each row are in the cache.",
    "new_lengths": "How many tokens of each row are new in this call; the rest is padding.",
    "logit_positions": "The columns of this call whose logits are wanted, from 0 on.",
    "window_starts": "How many first tokens of each row the window layers hold no more.",
    "hidden": "What the stage before this one gives.",
    "next_hidden": "What the stage after this one takes.",
    "logits": "Logits of the wanted columns, zeros where these are padding.",
}
_PAST = "KV cache of a layer before this call. The caller owns it; it begins as zeros."
_PRESENT = "The same after this call; it may be the same memory as the past."


def tell_about(
    model: ir.Model, checkpoint: Checkpoint, options: ExportOptions, stage: Stage | None
) -> None:
    """Write the texts and the metadata of a finished graph, in place."""
    architecture = checkpoint.config.model_type
    layers = f"{checkpoint.config.num_layers} layers" if stage is None else str(stage)
    graph = model.graph
    model.doc_string = (
        f"A decoder of the architecture {architecture}: {layers}. It takes token ids and a KV "
        "cache that the caller owns, and gives logits and the cache with the new tokens in it. "
        f"{_RUNS[options.target]} The weights lie in safetensors files beside this one. "
        f"{MANIFEST_NAME} says what each input, output and file is."
    )
    ops = Counter(node.op_type for node in graph if node.domain)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(ops.items()))
    graph.doc_string = (
        "Nodes are named after the module of the model that they come from, layer by layer"
        f"{f': {counts}' if counts else ''}. Weights have their names in the checkpoint."
    )
    for value in (*graph.inputs, *graph.outputs):
        value.doc_string = _about_value(str(value.name))
    model.metadata_props.update(
        {
            "architecture": architecture,
            "exporter": f"{model.producer_name} {model.producer_version}",
            "kv_dtype": options.kv_dtype,
            "layers": layers,
            "package_format": f"{FORMAT} {FORMAT_VERSION}",
            "source": layout_of(checkpoint),
            "target": options.target,
        }
    )


def _about_value(name: str) -> str | None:
    if name.startswith("past_key_values."):
        return _PAST
    return _PRESENT if name.startswith("present.") else _VALUES.get(name)
