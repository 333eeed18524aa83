"""Time what the engine adds to bare steps of the session: same batch, same rows, turn by turn.

    python benchmarks/engine.py PACKAGE --rows 8 --threads 2

For the shapes of gpt-oss-20b, with random weights:

    gptoss-onnx make-checkpoint 20b build/engine/checkpoint --layers 4
    gptoss-onnx export build/engine/checkpoint --output build/engine/package --dense checkpoint \
        --kv-dtype bfloat16
    python benchmarks/engine.py build/engine/package

A bare step is `Session.forward` on all rows, and the greedy choice of `argmax`. A step of the
engine is the time from the end of one step to the end of the next while all rows run: queue,
constraint hooks, sampling, sinks and counters are in it. Rounds alternate; a ratio compares what
ran in one round, and the figure is the median of rounds.

`own` is the processor time of the engine's thread in a step outside `Session.forward`. It hardly
depends on what else the machine does, where the difference of two steps does.
"""

import argparse
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import (
    Engine,
    FinishReason,
    GenerationRequest,
    TokenLogprobs,
)

WARM_STEPS = 3
SETTINGS = {
    "greedy": Sampling(stop_tokens=()),
    "temperature 1, top-p 0.95": Sampling(temperature=1, top_p=0.95, seed=1, stop_tokens=()),
}


class Counting:
    """A sink that does nothing but wait for the end."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def token(self, token: int, logprobs: TokenLogprobs | None) -> bool:
        """Go on."""
        return False

    def finish(self, reason: FinishReason, message: str) -> None:
        """Note the end."""
        if reason != "length":
            raise SystemExit(f"engine: found reason {reason} ({message}), expected length")
        self.over.set()


class Clock:
    """An observer that notes when each step of all rows ended."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.ends: list[float] = []
        self.own: list[float] = []  # processor time at each end, without `Session.forward`
        self._forward = 0.0

    def first_token(self, seconds: float) -> None:
        """Not of interest."""

    def prefill(self, seconds: float, tokens: int) -> None:
        """Not of interest: while a prompt is run, not all rows are active."""

    def step(self, seconds: float, rows: int) -> None:
        """Note the time."""
        if rows == self.rows:
            self.ends.append(time.perf_counter())
            self.own.append(time.thread_time() - self._forward)

    def watch(self, session: Session) -> None:
        """Count the processor time of `session.forward`."""
        own = session.forward

        def forward(*arguments: Any, **named: Any) -> Any:
            begin = time.thread_time()
            try:
                return own(*arguments, **named)
            finally:
                self._forward += time.thread_time() - begin

        session.forward = forward  # type: ignore[method-assign]  # what is measured

    def finished(self, reason: FinishReason, **counts: Any) -> None:
        """Not of interest."""


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--steps", type=int, default=24, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows, steps = arguments.rows, arguments.steps
    with Session.open(arguments.package, threads=arguments.threads) as session:
        rng = np.random.default_rng(0)
        prompts = rng.integers(0, session.vocab, (rows, arguments.context))
        # the first step of all rows comes once the last prompt is run: the others are ahead by then
        capacity = arguments.context + steps + WARM_STEPS + rows + 8
        clock = Clock(rows)
        clock.watch(session)
        with Engine(
            session,
            slots=rows,
            capacity=capacity,
            chunk=arguments.context,
            max_queue=0,
            prefix_bytes=1 << 30,
            observe=clock,
        ) as engine:
            for name, sampling in SETTINGS.items():
                bare, batched, own = [], [], []
                for _ in range(arguments.rounds):
                    bare.append(bare_seconds(session, prompts, capacity, steps))
                    batched.append(engine_seconds(engine, clock, prompts, sampling, steps))
                    own.append(median_gap(clock.own))
                report(name, bare, batched, own)


def bare_seconds(
    session: Session, prompts: np.ndarray[Any, Any], capacity: int, steps: int
) -> float:
    """Return the median seconds of a step without an engine."""
    with session.new_cache(len(prompts), capacity, chunk=prompts.shape[1]) as cache:
        last = session.forward(prompts, cache)[:, 0].argmax(axis=1)
        ends = []
        for _ in range(steps + WARM_STEPS):
            last = session.forward(last[:, None], cache)[:, 0].argmax(axis=1)
            ends.append(time.perf_counter())
    return median_gap(ends)


def engine_seconds(
    engine: Engine, clock: Clock, prompts: np.ndarray[Any, Any], sampling: Sampling, steps: int
) -> float:
    """Return the median seconds of a step of the engine while all rows are active."""
    clock.ends.clear()
    clock.own.clear()
    rows = len(prompts)
    sinks = [Counting() for _ in range(rows)]
    for row, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
        # one prompt is run a step: who comes later has fewer tokens to go
        most = steps + WARM_STEPS + rows - row
        engine.submit(GenerationRequest(tuple(prompt.tolist()), sampling, most, sink))
    for sink in sinks:
        sink.over.wait()
    return median_gap(clock.ends)


def median_gap(ends: list[float]) -> float:
    """Return the median seconds between two steps, the first ones aside."""
    return statistics.median(np.diff(ends[WARM_STEPS:]).tolist())


def report(name: str, bare: list[float], batched: list[float], own: list[float]) -> None:
    """Print the figures of one setting."""
    ratios = [ours / alone for ours, alone in zip(batched, bare, strict=True)]
    figures = {
        "setting": name,
        "bare_ms": round(1e3 * statistics.median(bare), 3),
        "engine_ms": round(1e3 * statistics.median(batched), 3),
        "overhead_percent": round(100 * (statistics.median(ratios) - 1), 2),
        "own_ms": round(1e3 * statistics.median(own), 3),
    }
    print(
        f"{name:28} bare {figures['bare_ms']:9.2f} ms   engine {figures['engine_ms']:9.2f} ms   "
        f"overhead {figures['overhead_percent']:6.2f} %   own {figures['own_ms']:7.2f} ms"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
