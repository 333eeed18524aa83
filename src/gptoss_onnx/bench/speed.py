"""What `bench` found: times of a package, what the machine can do, and how close the package comes
to that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gptoss_onnx.amounts import count_of, file_size

if TYPE_CHECKING:
    from gptoss_onnx.bench.footprint import WeightBytes
    from gptoss_onnx.bench.machine import Machine

MOMENTS = ("before", "after")


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile of a list of figures."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarize one or more figures."""
        low, middle, high = np.percentile(values, (10, 50, 90))
        return cls(float(middle), float(low), float(high))


@dataclass(frozen=True)
class Timing:
    """Runs of the graph that took `tokens` tokens each, after `context` tokens in the cache."""

    tokens: int
    context: int
    seconds: tuple[float, ...]

    @property
    def rate(self) -> Spread:
        """Tokens a second."""
        return Spread.of([self.tokens / seconds for seconds in self.seconds])

    @property
    def milliseconds(self) -> Spread:
        """Time of a token."""
        return Spread.of([1e3 * seconds / self.tokens for seconds in self.seconds])

    def summary(self) -> str:
        """Return the figures in a line."""
        time = self.milliseconds
        place = f"at context {self.context}" if self.context else "at the start"
        spread = f"{time.median:.3g} ms a token (p10 {time.p10:.3g}, p90 {time.p90:.3g})"
        what = f"{count_of(self.tokens, 'token')} {place}"
        return f"{what}: {self.rate.median:.1f} tokens/s, {spread}"

    def to_json(self) -> dict[str, Any]:
        """Return the figures with what they are of."""
        return {
            "tokens": self.tokens,
            "context": self.context,
            "runs": len(self.seconds),
            "milliseconds_per_token": asdict(self.milliseconds),
            "tokens_per_second": asdict(self.rate),
        }


@dataclass(frozen=True)
class Floor:
    """The least time that a decode step can take: what it must read, at the bandwidth that was
    measured between the steps.
    """

    read_gb_s: Spread  # of the package's weights, 10⁹ bytes a second
    milliseconds: float  # at the median of that
    share: Spread  # floor divided by time, of each step with the read before it; 1 is the floor


@dataclass(frozen=True)
class Times:
    """What a session took."""

    open_seconds: float
    first_token_seconds: float  # after opening
    prefill: Timing
    decode: Timing
    anonymous_bytes: int | None  # of the process, after decode; None if the system does not say
    kv_cache_bytes: int


@dataclass(frozen=True)
class Settings:
    """What ran; `threads` None is ONNX Runtime's choice."""

    package: str
    kernels: str
    activations: str
    kv_dtype: str
    threads: int | None
    onnxruntime: str


@dataclass(frozen=True)
class Speed:
    """The whole answer; `unmeasured` says why `floor` is None.

    `machine` is None if the native library is not available.
    """

    settings: Settings
    times: Times
    weights: "WeightBytes"
    cache_bytes: int  # that a decode step reads, in the middle of those measured
    floor: Floor | None
    machine: "tuple[Machine, Machine] | None"  # before and after
    unmeasured: str | None

    @property
    def bytes_per_token(self) -> int:
        """What a decode step must read."""
        return self.weights.total + self.cache_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the document that `bench --json` prints."""
        times = self.times
        return {
            **asdict(self.settings),
            "open_seconds": times.open_seconds,
            "first_token_seconds": times.first_token_seconds,
            "prefill": times.prefill.to_json(),
            "decode": times.decode.to_json(),
            "memory": {
                "anonymous_bytes": times.anonymous_bytes,
                "kv_cache_bytes": times.kv_cache_bytes,
            },
            "bytes_per_token": {
                **asdict(self.weights),
                "kv_cache": self.cache_bytes,
                "total": self.bytes_per_token,
            },
            "floor": None if self.floor is None else asdict(self.floor),
            "machine": None
            if self.machine is None
            else dict(zip(MOMENTS, map(asdict, self.machine), strict=True)),
            "unmeasured": self.unmeasured,
        }

    def summary(self) -> str:
        """Return the lines for people."""
        times, settings = self.times, self.settings
        anonymous = (
            ""
            if times.anonymous_bytes is None
            else f"{file_size(times.anonymous_bytes)} anonymous, of it "
        )
        lines = {
            "open": f"{times.open_seconds:.2f} s, then the first token in "
            f"{times.first_token_seconds:.3f} s",
            "prefill": times.prefill.summary(),
            "decode": times.decode.summary(),
            "memory": f"{anonymous}{file_size(times.kv_cache_bytes)} KV cache",
            "reads": self._reads(),
            "floor": self._floor(),
            "machine": self._machine(),
        }
        threads = "" if settings.threads is None else f", {count_of(settings.threads, 'thread')}"
        head = f"{settings.package} ({settings.kernels} kernels, {settings.activations}{threads})"
        return "\n".join([head, *(f"  {key:<9}{text}" for key, text in lines.items() if text)])

    def _reads(self) -> str:
        parts = (
            ("dense", self.weights.dense),
            ("experts", self.weights.experts),
            ("KV cache", self.cache_bytes),
        )
        kinds = ", ".join(f"{name} {file_size(count)}" for name, count in parts if count)
        return f"{file_size(self.bytes_per_token)} a token, the least in decode ({kinds})"

    def _floor(self) -> str:
        if self.floor is None:
            return f"not measured: {self.unmeasured}"
        share = self.floor.share
        return (
            f"{self.floor.milliseconds:.3g} ms to read that at {self.floor.read_gb_s.median:.1f} "
            f"GB/s; decode reaches {share.median:.0%} of that speed (p10 {share.p10:.0%}, "
            f"p90 {share.p90:.0%})"
        )

    def _machine(self) -> str:
        if self.machine is None:
            return ""
        units = {
            "read_gb_s": "read {} GB/s",
            "fma_gflops": "float32 FMA {} GFLOP/s",
            "bf16_gflops": "bf16 {} GFLOP/s",
        }
        units |= {
            "int8_gops": "int8 {} Gop/s",
            "int16_gops": "int16 {} Gop/s",
            "amx_bf16_gflops": "AMX bf16 {} GFLOP/s",
            "amx_int8_gops": "AMX int8 {} Gop/s",
        }
        texts = []
        for field, text in units.items():
            figures = [getattr(machine, field) for machine in self.machine]
            if None not in figures:
                before, after = (
                    f"{figure:.3g}" if figure < 100 else f"{figure:.0f}" for figure in figures
                )
                texts.append(text.format(before if before == after else f"{before}, {after}"))
        return f"{'; '.join(texts)} (before, after)"
