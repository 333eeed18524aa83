"""ServerMetrics: what Prometheus reads of one server; give it to the engine as its observer."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gptoss_onnx.runtime.engine import EngineSnapshot, FinishReason

_FIRST_TOKEN = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds
_TOKEN = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_GAUGES = (
    ("slots", "slots", "Rows that can run at once"),
    ("slots_active", "active", "Rows that run now"),
    ("prefilling", "prefilling", "Requests whose prompt is being run"),
    ("queue", "queued", "Requests that wait for a slot"),
    ("queue_limit", "max_queue", "Requests that may wait"),
    ("prefix_states", "prefix_states", "Rows saved for prompts that begin alike"),
    ("prefix_bytes", "prefix_bytes", "Bytes of saved rows"),
    ("cache_bytes", "cache_bytes", "Bytes of the KV cache"),
)
_COUNTERS = (
    ("submitted", "submitted", "Answers asked of the engine"),
    ("refused", "refused", "Answers refused because the queue was full"),
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts"),
    ("cached_prompt_tokens", "cached_tokens", "Tokens of prompts that a saved row held"),
    ("generated_tokens", "generated_tokens", "Tokens generated"),
    ("steps", "steps", "Decode steps"),
    ("prefix_hits", "prefix_hits", "Prompts that began with a saved row"),
)


class ServerMetrics:
    """The metrics of one server, in a registry of its own; an `EngineObserver`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gptoss_requests",
            "Requests answered",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.first_token_seconds = _histogram(
            "gptoss_time_to_first_token_seconds",
            "From the submission of an answer to its first token",
            _FIRST_TOKEN,
            self.registry,
        )
        self.token_seconds = _histogram(
            "gptoss_time_per_token_seconds",
            "Of a decode step, which gives each running row one token",
            _TOKEN,
            self.registry,
        )
        self.answer_seconds = _histogram(
            "gptoss_answer_seconds",
            "From the submission of an answer to its end",
            _FIRST_TOKEN,
            self.registry,
        )
        self.prefill_seconds = Counter(
            "gptoss_prefill_seconds", "Spent on prompts", registry=self.registry
        )

    def watch(self, snapshot: Callable[[], EngineSnapshot], active: Callable[[], int]) -> None:
        """Read an engine's state, and the number of requests in work, whenever metrics are read."""
        self.registry.register(_EngineCollector(snapshot, active))

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    # What the engine's thread tells.

    def first_token(self, seconds: float) -> None:
        """Take note of an answer's first token."""
        self.first_token_seconds.observe(seconds)

    def prefill(self, seconds: float, tokens: int) -> None:
        """Take note of a part of a prompt."""
        self.prefill_seconds.inc(seconds)

    def step(self, seconds: float, rows: int) -> None:
        """Take note of a decode step."""
        self.token_seconds.observe(seconds)

    def finished(
        self,
        reason: FinishReason,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        generated_tokens: int,
        seconds: float,
    ) -> None:
        """Take note of an answer's end."""
        self.answer_seconds.observe(seconds)


class _EngineCollector(Collector):
    """The engine's own numbers, taken when they are asked for."""

    def __init__(self, snapshot: Callable[[], EngineSnapshot], active: Callable[[], int]) -> None:
        self._snapshot, self._active = snapshot, active

    def collect(self) -> Iterator[Metric]:
        state = self._snapshot()
        for name, field, text in _GAUGES:
            yield GaugeMetricFamily(f"gptoss_{name}", text, getattr(state, field))
        for name, field, text in _COUNTERS:
            yield CounterMetricFamily(f"gptoss_{name}", text, getattr(state, field))
        finished = CounterMetricFamily("gptoss_finished", "Answers ended", labels=("reason",))
        for reason, count in state.finished.items():
            finished.add_metric([reason], count)
        yield finished
        yield GaugeMetricFamily("gptoss_requests_active", "Requests in work", self._active())

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: the registry need not ask the engine for that."""
        return iter(())


def _histogram(
    name: str, text: str, buckets: tuple[float, ...], registry: CollectorRegistry
) -> Histogram:
    return Histogram(name, text, buckets=buckets, registry=registry)
