"""Drive the native kernels with random calls, valid and invalid, at every CPU level; stop at the
first failure.

    python tests/fuzz/fuzz_kernels.py --seconds 60 --seed 1
    python tests/fuzz/fuzz_kernels.py --replay 123456789
    python tests/fuzz/fuzz_kernels.py --seconds 600 --library build/asan/libgptoss_ops.so

Each case is drawn from a seed of its own, run in one process per level, and compared with the op's
PyTorch definition. An invalid call must be refused with an error that names op, operand, found and
expected. Where the library was built with AddressSanitizer, its processes are started under it.
"""

import argparse
import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))  # so that this file can be run by its path
from fuzz.case import Answer, Case  # noqa: E402
from fuzz.check import Expectation, expectation  # noqa: E402
from fuzz.draw import draw  # noqa: E402
from support.native_levels import LEVELS, LIBRARY  # noqa: E402

BATCH = 24  # cases handed to the processes at a time


@dataclass(frozen=True)
class Failure:
    """What went wrong in which case."""

    seed: int
    level: str
    what: str

    def __str__(self) -> str:
        case = draw(self.seed)
        shapes = {name: tensor and tensor.array.shape for name, tensor in case.inputs.items()}
        types = {name: tensor and tensor.type for name, tensor in case.inputs.items()}
        return (
            f"FAILED at level {self.level}: {self.what}\n  {case.op} {case.attributes} "
            f"mode={case.mode} "
            f"threads={case.threads} repeat={case.repeat} in_place={case.in_place}\n  shapes "
            f"{shapes}\n"
            f"  types {types}\n  expected error {case.error!r}\n  replay with --replay {self.seed}"
        )


class Worker:
    """The process of one CPU level, the best one where `level` is None."""

    def __init__(self, python: str, library: Path, level: str | None) -> None:
        environment = {**process_environment(library, level), "PYTHONPATH": str(TESTS)}
        command = [python, "-m", "fuzz.worker", str(library)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.level = self._read()

    def _read(self) -> object:
        assert self._process.stdout
        return pickle.load(self._process.stdout)

    def send(self, seeds: list[int]) -> None:
        assert self._process.stdin
        self._process.stdin.write(pickle.dumps(seeds))
        self._process.stdin.flush()

    def answer(self, seed: int) -> Answer:
        """Return the answer to a seed that was sent; a process that has died answers that it
        did.
        """
        try:
            found = self._read()
        except (EOFError, pickle.UnpicklingError):
            status = self._process.wait()
            return Answer(
                seed,
                violation=f"the process ended with status {status}; its standard error is above",
            )
        assert isinstance(found, Answer) and found.seed == seed
        return found

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def process_environment(library: Path, level: str | None) -> dict[str, str]:
    """Return this process's environment for one that loads `library` at a CPU level, the best one
    where it is None; under AddressSanitizer where the library was built with it.
    """
    environment = {**os.environ}
    environment.pop("GPTOSS_CPU_LEVEL", None)
    if level is not None:
        environment["GPTOSS_CPU_LEVEL"] = level
    if b"__asan_init" in library.read_bytes():
        environment |= sanitizer_environment()
    return environment


def sanitizer_environment() -> dict[str, str]:
    """Return what a Python needs to load a library with sanitizers; Python itself leaks."""
    # libstdc++ too: AddressSanitizer looks for the function that throws when it starts, and Python
    # does not link it.
    paths = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return {
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:"
        "detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def start_workers(library: Path, python: str = sys.executable) -> list[Worker]:
    """Start a process for each level of this machine, the scalar one first."""
    best = Worker(python, library, None)
    levels = LEVELS[: LEVELS.index(str(best.level))]
    return [*(Worker(python, library, level) for level in levels), best]


def run_batch(workers: list[Worker], seeds: list[int], counts: Counter[str]) -> Failure | None:
    """Run cases at all levels and judge them; a worker is not asked again after its process has
    died.
    """
    for worker in workers:
        worker.send(seeds)
    for seed in seeds:
        case = draw(seed)
        expected: Expectation | None = None
        for worker in workers:
            answer = worker.answer(seed)
            if case.error is None and answer.outputs is not None and expected is None:
                expected = expectation(case)
            what = judge(case, answer, expected)
            if what:
                return Failure(seed, str(worker.level), what)
        counts[f"{case.op} {'refused' if case.error else 'computed'}"] += 1
    return None


def judge(case: Case, answer: Answer, expected: Expectation | None) -> str | None:
    """Return what is wrong with the answer of one level, or None."""
    if answer.violation is not None:
        return answer.violation
    if case.error is not None:
        if answer.error is None:
            return "an invalid call was not refused"
        named = re.search(case.error, answer.error)
        return None if named else f"the error does not say what is wrong: {answer.error}"
    if answer.outputs is None or expected is None:
        return f"a valid call was refused: {answer.error}"
    try:
        expected.check(answer.outputs)
    except AssertionError as error:
        return str(error)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where every case passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the run: its cases are drawn from it"
    )
    parser.add_argument("--replay", type=int, help="run this one case, as a failure printed it")
    parser.add_argument("--library", type=Path, default=LIBRARY, help="default: the installed one")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="one with another ONNX Runtime, to run the kernels in",
    )
    options = parser.parse_args(arguments)
    if options.library is None or not options.library.is_file():
        parser.error(
            f"--library: found no library at {options.library}, expected libgptoss_ops.so; build "
            "it first"
        )
    torch.set_num_threads(1)  # the levels' processes need the cores
    workers = start_workers(options.library.absolute(), options.python)
    counts: Counter[str] = Counter()
    try:
        failure = fuzz(workers, options, counts)
    finally:
        for worker in workers:
            worker.stop()
    print(
        f"{sum(counts.values())} cases at levels "
        f"{', '.join(str(worker.level) for worker in workers)}: {dict(counts)}"
    )
    print(failure or "no failure")
    return 1 if failure else 0


def fuzz(
    workers: list[Worker], options: argparse.Namespace, counts: Counter[str]
) -> Failure | None:
    """Run the one case to replay, or new ones until time is up."""
    if options.replay is not None:
        return run_batch(workers, [options.replay], counts)
    rng = np.random.default_rng(options.seed)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        failure = run_batch(workers, [int(seed) for seed in rng.integers(0, 2**62, BATCH)], counts)
        if failure:
            return failure
    return None


if __name__ == "__main__":
    sys.exit(main())
