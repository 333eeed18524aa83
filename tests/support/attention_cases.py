"""Layers, runs of calls and inputs for the tests of SinkAttention: rings, ragged rows, rewinds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

import gptoss_onnx.custom_ops.sink_attention  # noqa: F401 - defines the op


@dataclass(frozen=True)
class Case:
    """One layer's shape and a run of calls: each (new tokens a row, columns), then how far each row
    is rewound.
    """

    kv_heads: int
    group: int
    half: int
    window: int
    reserve: int
    calls: tuple[tuple[tuple[int, ...], int], ...]
    rewinds: tuple[tuple[int, ...], ...]
    seed: int

    @property
    def batch(self) -> int:
        return len(self.calls[0][0])

    @property
    def attributes(self) -> dict[str, object]:
        return {
            "num_heads": self.kv_heads * self.group,
            "kv_num_heads": self.kv_heads,
            "scale": (2 * self.half) ** -0.5,
            "window": self.window,
        }

    @property
    def capacity(self) -> int:
        chunk = max(columns for _, columns in self.calls)
        return (
            self.window + self.reserve + chunk - 1
            if self.window
            else sum(columns for _, columns in self.calls)
        )


@st.composite
def cases(draw: st.DrawFn, groups: int = 3, halves: int = 4) -> Case:
    """Draw small layers with up to `groups` query heads a kv head and head dims up to 2 ·
    `halves`.
    """
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    calls = []
    for _ in range(count):
        columns = draw(st.integers(1, 9))
        calls.append((tuple(draw(st.integers(0, columns)) for _ in range(batch)), columns))
    return Case(
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.integers(1, groups)),
        half=draw(st.integers(1, halves)),
        window=draw(st.sampled_from((0, 1, 2, 3, 5, 8))),
        reserve=draw(st.integers(0, 4)),
        calls=tuple(calls),
        rewinds=tuple(tuple(draw(st.integers(0, 12)) for _ in range(batch)) for _ in range(count)),
        seed=draw(st.integers(0, 2**31)),
    )


Call = tuple[dict[str, torch.Tensor], torch.Tensor, tuple[int, ...]]


def run_definition(case: Case, dtype: torch.dtype) -> Iterator[Call]:
    """Yield (inputs, output of the definition, new tokens a row) for each call, with the cache
    carried along.
    """
    generator = torch.Generator().manual_seed(case.seed)
    past = torch.zeros(case.batch, dtype=torch.int64)
    highest_start = past.clone()
    shape = (case.batch, case.kv_heads, case.capacity, 2 * case.half)
    cache = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
    for (new, columns), rewinds in zip(case.calls, case.rewinds, strict=True):
        inputs = call_inputs(case, generator, past, new, columns)
        inputs["past_key"], inputs["past_value"] = cache
        output, *cache = torch.ops.gptoss.sink_attention(
            *inputs.values(), *case.attributes.values()
        )
        yield inputs, output, new
        highest_start = torch.maximum(highest_start, past)
        past = past + torch.tensor(new)
        floor = (
            (highest_start - case.reserve).clamp(min=0) if case.window else torch.zeros_like(past)
        )
        past = torch.minimum(past, torch.maximum(floor, past - torch.tensor(rewinds)))


def call_inputs(
    case: Case, generator: torch.Generator, past: torch.Tensor, new: tuple[int, ...], columns: int
) -> dict[str, torch.Tensor]:
    """Return the inputs of one call, but for an empty cache that the caller replaces."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    batch, width = len(new), 2 * case.half
    angles = (past.unsqueeze(1) + torch.arange(columns)).unsqueeze(2) / 10.0 ** torch.arange(
        case.half
    )
    return {
        "query": normal(batch, columns, case.kv_heads * case.group * width),
        "key": normal(batch, columns, case.kv_heads * width),
        "value": normal(batch, columns, case.kv_heads * width),
        "past_key": torch.empty(0),
        "past_value": torch.empty(0),
        "past_lengths": past,
        "new_lengths": torch.tensor(new),
        "sinks": normal(case.kv_heads * case.group),
        "cos": angles.cos(),
        "sin": angles.sin(),
    }


def cached_call(
    case: Case, past: tuple[int, ...], capacity: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return the inputs of the case's first call as if `past` random tokens a row were cached
    already.
    """
    generator = torch.Generator().manual_seed(case.seed)
    inputs = call_inputs(case, generator, torch.tensor(past), *case.calls[0])
    shape = (case.batch, case.kv_heads, capacity, 2 * case.half)
    for name in ("past_key", "past_value"):
        inputs[name] = torch.randn(shape, generator=generator).to(dtype)
    return inputs


def real_tokens(columns: int, new: torch.Tensor) -> torch.Tensor:
    """Return which columns are no padding, bool (B, S)."""
    return torch.arange(columns) < new.unsqueeze(1)
