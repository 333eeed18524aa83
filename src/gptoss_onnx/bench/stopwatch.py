"""Run a package with random tokens and take its times; between decode steps, read its weights and
nothing else.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptoss_onnx.bench.footprint import WeightBytes, cache_bytes
from gptoss_onnx.bench.machine import READ_BYTES, read_seconds
from gptoss_onnx.bench.speed import Floor, Spread, Times, Timing
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.runtime import KVCache, Package, Session

STEPS = 4  # decoded between two reads
# of one measurement; the fastest counts, because a disturbance only slows a read
LEAST_READS, LEAST_BYTES = 3, 64 << 20
# ONNX Runtime's threads spin for tens of milliseconds after a run, on cores that the read needs
SETTLE_SECONDS = 0.1


@dataclass(frozen=True)
class Plan:
    """What to measure: `prefill` tokens `rounds` times and `decode` tokens one by one, after
    `context` tokens.
    """

    prefill: int
    decode: int
    context: int
    rounds: int

    @property
    def longest(self) -> int:
        """Tokens that the cache must hold."""
        return self.context + max(self.prefill, self.decode)


def random_tokens(vocab: int) -> Iterator[int]:
    """Yield token ids, never one twice in a row: what a step reads depends on where its token is
    routed.
    """
    generator = np.random.default_rng(0)
    token = 0
    while True:
        token = (token + int(generator.integers(1, vocab))) % vocab
        yield token


class WeightReader:
    """Reads a package's weights as they lie, mapped from their file, with all threads and as fast
    as the machine can.

    Attributes:
        size: bytes that it reads.
        seconds: of each time that it did.
    """

    def __init__(self, package: Package, threads: int) -> None:
        file = _largest_file(package)
        self.size = min(file.stat().st_size, READ_BYTES)
        self._bytes = np.memmap(file, np.uint8, "r", shape=self.size)
        self._threads = threads
        self.seconds: list[float] = []

    def warm(self) -> None:
        """Read without taking the time: the first may come from the disk."""
        self._read()

    def read(self) -> None:
        """Read, and take the time."""
        time.sleep(SETTLE_SECONDS)
        self.seconds.append(self._read())

    def floor(self, decode: Timing, weights: WeightBytes, manifest: Manifest) -> Floor:
        """Compare decode steps with these reads, each of which came before `STEPS` of them."""
        floors, shares = [], []
        for step, seconds in enumerate(decode.seconds):
            count = weights.total + cache_bytes(
                manifest.cache, manifest.kv_dtype, decode.context + step
            )
            floors.append(count / self.size * self.seconds[step // STEPS])
            shares.append(floors[-1] / seconds)
        rates = [self.size / seconds / 1e9 for seconds in self.seconds]
        return Floor(Spread.of(rates), 1e3 * Spread.of(floors).median, Spread.of(shares))

    def _read(self) -> float:
        reads = max(LEAST_READS, LEAST_BYTES // self.size)
        return min(
            read_seconds(self._bytes.ctypes.data, self.size, self._threads) for _ in range(reads)
        )


class Stopwatch:
    """Takes the times of one session; `tell` hears what comes next."""

    def __init__(
        self, session: Session, reader: WeightReader | None, tell: Callable[[str], None]
    ) -> None:
        self._session, self._reader, self._tell = session, reader, tell
        self._tokens = random_tokens(session.vocab)

    def times(self, plan: Plan, open_seconds: float) -> Times:
        """Run the plan."""
        with self._session.new_cache(1, 1) as cache:
            first_token_seconds = self._run(cache, 1)
        with self._session.new_cache(1, plan.longest) as cache:
            if plan.context:
                self._tell(f"prefill of {plan.context} tokens of context")
                self._run(cache, plan.context)
            self._tell(f"prefill of {plan.prefill} tokens, {plan.rounds} times")
            prefill = self._prefill(cache, plan)
            self._tell(f"decode of {plan.decode} tokens")
            decode = self._decode(cache, plan)
            return Times(
                open_seconds, first_token_seconds, prefill, decode, anonymous_bytes(), cache.nbytes
            )

    def _prefill(self, cache: KVCache, plan: Plan) -> Timing:
        seconds = []
        for _ in range(plan.rounds):
            with cache.fork() as twin:  # the cache stays at the context
                seconds.append(self._run(twin, plan.prefill))
        return Timing(plan.prefill, plan.context, tuple(seconds))

    def _decode(self, cache: KVCache, plan: Plan) -> Timing:
        if self._reader is not None:
            self._reader.warm()
        seconds = []
        for step in range(plan.decode):
            if self._reader is not None and step % STEPS == 0:
                self._reader.read()
                self._wake(cache)
            seconds.append(self._run(cache, 1))
        return Timing(1, plan.context, tuple(seconds))

    def _wake(self, cache: KVCache) -> None:
        """Run a token and take it back, because a step of a running generation finds all threads
        awake and its own data in the caches.
        """
        if not cache.layout.rewinds:
            with cache.fork() as twin:
                self._run(twin, 1)
            return
        lengths = cache.lengths
        self._run(cache, 1)
        cache.rewind(lengths)

    def _run(self, cache: KVCache, count: int) -> float:
        tokens = [[next(self._tokens) for _ in range(count)]]
        begin = time.perf_counter()
        self._session.forward(tokens, cache)
        return time.perf_counter() - begin


def anonymous_bytes() -> int | None:
    """Return the memory of this process that belongs to no file, or None if the system does not
    say.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")]
    return found[0] if found else None


def _largest_file(package: Package) -> Path:
    files = [package.weights_root / entry.name for entry in package.manifest.weights.files]
    return max(files or [package.graph], key=lambda file: file.stat().st_size)
