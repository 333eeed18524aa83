"""A cache that is full up to a late position, without anybody having run so many tokens: its keys
and values are random numbers, the same ones for the session and the reference.

They are as large as the reference's own. So errors are those of short sequences, and faults show:
a query turned by one position moves logits by whole numbers, the values after the first 512 left
out by a third even after 131072 tokens.

Legend: P tokens that the cache holds, K kv heads, C slots, D head dim, n positions, W window,
m kept first tokens of a window layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_onnx.custom_ops.cache_slots import slots_of
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_layout import RingLayout
from gptoss_onnx.runtime.contrib_layout import ContribLayout
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.window_layout import WindowLayout
from gptoss_onnx.validation.cases.buffers import DTYPES, stored, writable
from gptoss_onnx.validation.judging.expected import Expected

SAMPLE = 32  # tokens of which the reference's own keys and values give the size of random ones


@dataclass(frozen=True)
class HeldLayer:
    """Keys and values of one layer, (K, n, D) in the cache's type, at `positions`, int64 (n)."""

    layer: CacheLayer
    positions: Tensor
    keys: Tensor
    values: Tensor


def held_layers(
    layers: Sequence[CacheLayer], dtype: str, past: int, expected: Expected, tokens: Sequence[int]
) -> list[HeldLayer]:
    """Draw what a cache holds after `past` tokens, of all positions that a later query may see.

    Args:
        layers: of the cache.
        dtype: of the cache; the numbers are rounded to it.
        past: P.
        expected: the reference, whose seed the draw depends on.
        tokens: some tokens, whose keys and values give the size of random ones.
    """
    sizes = expected.caches(tokens[:SAMPLE])
    generator = torch.Generator()
    generator.manual_seed(int(expected.generator(f"late {past}").integers(2**31)))
    found = []
    for layer, own in zip(layers, sizes, strict=True):
        positions = torch.arange(past)
        if layer.window:
            near = positions > past - layer.window
            positions = positions[near | (positions < layer.sink_tokens)]
        shape = (layer.kv_heads, len(positions), layer.head_dim)
        keys, values = (
            part.float().square().mean().sqrt() * torch.randn(shape, generator=generator)
            for part in own
        )
        kept = DTYPES[dtype]
        found.append(HeldLayer(layer, positions, keys.to(kept), values.to(kept)))
    return found


def reference_caches(held: Sequence[HeldLayer], past: int, new: int) -> list[tuple[Tensor, Tensor]]:
    """Return the caches (1, K, C, D) in float32 in which the reference finds what is held, with
    room for `new` tokens.
    """
    caches = []
    for part in held:
        layer, slots = part.layer, past + new
        if layer.window:
            slots = min(slots, max(layer.window + new - 1, layer.sink_tokens + 1))
        pair = torch.zeros(2, 1, layer.kv_heads, slots, layer.head_dim)
        places = slots_of(part.positions, slots, layer.sink_tokens if layer.window else 0)
        pair[0, 0, :, places] = part.keys.float()
        pair[1, 0, :, places] = part.values.float()
        caches.append((pair[0], pair[1]))
    return caches


def place(cache: KVCache, row: int, held: Sequence[HeldLayer]) -> None:
    """Write what is held into the buffers of a row, whose `length` tells that it is there."""
    for part, (keys, values) in zip(held, cache.buffers, strict=True):
        slots = _session_slots(cache, part.layer, row, part.positions)
        for buffer, content in ((keys, part.keys), (values, part.values)):
            writable(buffer)[row][:, slots] = stored(content)


def pretend(cache: KVCache, lengths: Sequence[int], token: int = 0) -> None:
    """Let an empty cache count so many tokens in each row (B), as calls that wrote them would leave
    it.
    """
    wanted, begin = np.array(lengths, np.int64), 0
    part = cache.part()
    while begin < wanted.max():
        columns = part.columns(int(wanted.max()) - begin)
        part.mark_writing(columns)
        new = np.clip(wanted - begin, 0, columns)
        part.advance(new, np.full((len(wanted), columns), token))
        begin += columns


def _session_slots(
    cache: KVCache, layer: CacheLayer, row: int, positions: Tensor
) -> NDArray[np.int64]:
    """Return the slot in which the session's cache holds each position of a row."""
    if layer.window == 0:
        return np.asarray(positions.numpy())
    match cache.layout:
        case RingLayout():
            return np.asarray(slots_of(positions, cache.slots(layer), layer.sink_tokens).numpy())
        case WindowLayout():
            return np.asarray(positions.numpy() - cache.window_starts[row])
        case ContribLayout():
            first = max(0, int(cache.lengths[row]) - cache.slots(layer))
            return np.asarray(positions.numpy() - first)
        case other:
            raise AssertionError(f"a layout without a line here: {other}")
