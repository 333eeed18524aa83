"""Names that programs give gpt-oss's tensors beside the published ones.

transformers 5, asked to save a model that it has widened from MXFP4, calls the widened experts
`gate_up_proj_blocks` and `down_proj_blocks`, as what it has read, and writes no scales. Unsloth
makes the router a projection inside of it.
"""

import re
from dataclasses import replace

from gptoss_onnx.checkpoint.shards import Shards
from gptoss_onnx.checkpoint.tensors import FLOATS

_WIDENED = re.compile(r"(.*\.mlp\.experts\.(?:gate_up|down)_proj)_blocks")
_ROUTER = re.compile(r"(.*\.mlp\.router)\.linear(\.weight|\.bias)")


def respell(shards: Shards) -> None:
    """Give tensors in `shards` the published names, in place; none that is taken already."""
    candidates = [name for name in shards.tensors if ".mlp." in name]
    names = shards.tensors.keys() | shards.promised if candidates else set()
    for name in candidates:
        info = shards.tensors[name]
        widened = _WIDENED.fullmatch(name)
        if widened is not None and (info.dtype not in FLOATS or f"{widened[1]}_scales" in names):
            continue
        new = published_name(name)
        if new in names:
            continue
        shards.tensors[new] = replace(shards.tensors.pop(name), name=new)
        if name in shards.promised:
            shards.promised.remove(name)
            shards.promised.add(new)


def published_name(name: str) -> str:
    """Return what a published checkpoint calls a tensor of one of these programs; the experts that
    `name` says must be widened ones.
    """
    if (widened := _WIDENED.fullmatch(name)) is not None:
        return widened[1]
    router = _ROUTER.fullmatch(name)
    return name if router is None else router[1] + router[2]
