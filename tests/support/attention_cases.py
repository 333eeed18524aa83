"""Layers, runs of calls and inputs for the tests of SinkAttention: rings, ragged rows, rewinds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

import gptoss_onnx.custom_ops.sink_attention  # noqa: F401 - defines the op


@dataclass(frozen=True)
class Options:
    """What a layer may have beyond gpt-oss's: as drawn, or as gpt-oss has it."""

    sinks: bool = True
    rotary: int | None = None  # pairs that rotate; None: all of a head
    interleaved: int = 0
    slopes: bool = False  # ALiBi
    distances: int = 0  # N, columns of a table by distance; 0: none
    kept: int = 0  # sink_tokens
    kept_bias: float = 0.0


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
    options: Options = Options()

    @property
    def batch(self) -> int:
        return len(self.calls[0][0])

    @property
    def attributes(self) -> dict[str, int | float]:
        return {
            "num_heads": self.kv_heads * self.group,
            "kv_num_heads": self.kv_heads,
            "scale": (2 * self.half) ** -0.5,
            "window": self.window,
            "interleaved": self.options.interleaved,
            "sink_tokens": self.options.kept,
            "sink_bias": self.options.kept_bias,
        }

    @property
    def pairs(self) -> int:
        """R/2: pairs of dimensions that rotate."""
        return self.half if self.options.rotary is None else self.options.rotary

    @property
    def capacity(self) -> int:
        chunk = max(columns for _, columns in self.calls)
        return (
            self.window + self.reserve + chunk - 1
            if self.window
            else sum(columns for _, columns in self.calls)
        )


@st.composite
def options(draw: st.DrawFn, half: int, window: int) -> Options:
    """Draw what a layer has beyond its shape; one in three is like gpt-oss's."""
    if draw(st.integers(0, 2)) == 0:
        return Options()
    kept = draw(st.integers(0, max(0, window - 1)))
    return Options(
        sinks=draw(st.booleans()),
        rotary=draw(st.integers(0, half)),
        interleaved=draw(st.integers(0, 1)),
        slopes=draw(st.booleans()),
        distances=draw(st.sampled_from((0, 0, 1, 4, 60))),
        kept=kept,
        kept_bias=draw(st.sampled_from((0.0, 0.7, -2.0))) if kept else 0.0,
    )


@st.composite
def cases(draw: st.DrawFn, groups: int = 3, halves: int = 4) -> Case:
    """Draw small layers with up to `groups` query heads a kv head and head dims up to 2 ·
    `halves`.
    """
    half, window = draw(st.integers(1, halves)), draw(st.sampled_from((0, 1, 2, 3, 5, 8)))
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    calls = []
    for _ in range(count):
        columns = draw(st.integers(1, 9))
        calls.append((tuple(draw(st.integers(0, columns)) for _ in range(batch)), columns))
    return Case(
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.integers(1, groups)),
        half=half,
        window=window,
        reserve=draw(st.integers(0, 4)),
        calls=tuple(calls),
        rewinds=tuple(tuple(draw(st.integers(0, 12)) for _ in range(batch)) for _ in range(count)),
        seed=draw(st.integers(0, 2**31)),
        options=draw(options(half, window)),
    )


Inputs = dict[str, torch.Tensor | None]
Call = tuple[Inputs, torch.Tensor, tuple[int, ...]]


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
) -> Inputs:
    """Return the inputs of one call, but for an empty cache that the caller replaces."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    batch, width, heads = len(new), 2 * case.half, case.kv_heads * case.group
    chosen = case.options
    positions = past.unsqueeze(1) + torch.arange(columns)
    angles = angles_of(case, positions) if case.pairs else None
    from_end = angles_of(case, positions.clamp(max=case.window - 1)) if case.pairs else None
    kept = from_end if chosen.kept else None
    return {
        "query": normal(batch, columns, heads * width),
        "key": normal(batch, columns, case.kv_heads * width),
        "value": normal(batch, columns, case.kv_heads * width),
        "past_key": torch.empty(0),
        "past_value": torch.empty(0),
        "past_lengths": past,
        "new_lengths": torch.tensor(new),
        "sinks": normal(heads) if chosen.sinks else None,
        "cos": None if angles is None else angles.cos().float(),
        "sin": None if angles is None else angles.sin().float(),
        # of the layer, not of the call
        "alibi_slopes": torch.linspace(0.1, 1.3, heads) if chosen.slopes else None,
        "distance_bias": _table(heads, chosen.distances) if chosen.distances else None,
        "sink_cos": None if kept is None else kept.cos().float(),
        "sink_sin": None if kept is None else kept.sin().float(),
    }


def angles_of(case: Case, positions: torch.Tensor) -> torch.Tensor:
    """Return the angles of positions (…) in float64, (…, R/2)."""
    return positions.unsqueeze(-1).double() / 10.0 ** torch.arange(case.pairs)


def _table(heads: int, distances: int) -> torch.Tensor:
    return torch.randn(heads, distances, generator=torch.Generator().manual_seed(7))


def cached_call(case: Case, past: tuple[int, ...], capacity: int, dtype: torch.dtype) -> Inputs:
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
