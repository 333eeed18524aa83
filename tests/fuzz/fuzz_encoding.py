"""Drive the functions that convert weights with random matrices, at every CPU level; stop at the
first failure.

    python tests/fuzz/fuzz_encoding.py --seconds 60 --seed 1
    python tests/fuzz/fuzz_encoding.py --seconds 60 --library build/fuzz/libgptoss_ops.so

Each matrix is quantized to MXFP4 and decoded, or has a low-rank product added, and the result is
compared with the definition in PyTorch. Where the library was built with AddressSanitizer, its
processes are started under it.
"""

import argparse
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))  # so that this file can be run by its path
from fuzz.fuzz_kernels import process_environment  # noqa: E402
from gptoss_onnx.custom_ops import library  # noqa: E402
from support import low_rank_cases, mxfp4_cases  # noqa: E402
from support.native_levels import LIBRARY, cpu_levels  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where every case passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of all levels together")
    parser.add_argument("--seed", type=int, default=0, help="the cases are drawn from it")
    parser.add_argument("--library", type=Path, default=LIBRARY, help="default: the installed one")
    parser.add_argument("--here", action="store_true", help="in this process, at its level")
    options = parser.parse_args(arguments)
    if options.library is None or not options.library.is_file():
        parser.error(f"--library: found no library at {options.library}, expected one")
    if options.here:
        return run_cases(options.library, options.seconds, options.seed)
    levels = cpu_levels()
    passed = all(run_level(level, options, options.seconds / len(levels)) for level in levels)
    return 0 if passed else 1


def run_level(level: str, options: argparse.Namespace, seconds: float) -> bool:
    """Run cases in a process of one level; returns whether all passed."""
    environment = process_environment(options.library, level)
    words = ("--here", "--seconds", seconds, "--seed", options.seed, "--library", options.library)
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(command, env=environment, check=False).returncode == 0


def run_cases(path: Path, seconds: float, seed: int) -> int:
    """Run cases until time is up or one fails; returns 1 where one did."""
    torch.set_num_threads(1)
    library.library_path = lambda: path.absolute()
    level = library.library_info().cpu_level
    rng, done, end = np.random.default_rng(seed), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            run_case(np.random.default_rng(case := int(rng.integers(2**62))))
        except AssertionError:
            traceback.print_exc()
            print(f"FAILED at level {level}: case {case}")
            return 1
        done += 1
    print(f"{done} matrices converted at level {level}, no failure", flush=True)
    return 0


def run_case(rng: np.random.Generator) -> None:
    """Convert one matrix; raises AssertionError where the definition says otherwise."""
    rows, seed = int(rng.integers(0, 80)), int(rng.integers(2**32))
    if rng.random() < 0.5:
        columns, rank = int(rng.integers(1, 700)), int(rng.integers(0, 70))
        low_rank_cases.check(rows, columns, rank, seed)
        return
    case = str(rng.choice(sorted(mxfp4_cases.CASES)))
    dtype = mxfp4_cases.DTYPES[int(rng.integers(len(mxfp4_cases.DTYPES)))]
    weight = mxfp4_cases.made(case, rows + 1, int(rng.integers(1, 12)), dtype, seed)
    mxfp4_cases.check(weight, columns=bool(rng.random() < 0.5))


if __name__ == "__main__":
    sys.exit(main())
