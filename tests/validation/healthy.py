"""Validate healthy packages of many shapes, and print how near each comes to a false alarm.

    PYTHONPATH=tests .venv/bin/python tests/validation/healthy.py [--count 47] [--only cache]

For every kind of package and runtime, the largest errors found are shares of what was allowed.
Nothing may be 1 or more. The headrooms of `judging/error_model.py` were set with it.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from support.healthy_packages import Measured, healthy, measure


def main() -> int:
    """Measure all, print one line each and the worst by kind; 1 if anything healthy fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=47)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of the kinds' names")
    arguments = parser.parse_args()
    worst: dict[str, list[Measured]] = defaultdict(list)
    for package in healthy(arguments.count, arguments.seed):
        if arguments.only not in package.kind:
            continue
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = measure(package, Path(folder))
        worst[package.kind] += found
        alarms = [f"{case.case} ({case.note})" for case in found if not case.passed]
        print(
            f"{package!s:60} max abs {_largest(found, 'max_abs')}, KL {_largest(found, 'kl')}, "
            f"{time.perf_counter() - begin:.0f} s{' ALARM ' if alarms else ''}{'; '.join(alarms)}",
            flush=True,
        )
    print(f"\n{'largest share of what is allowed':40} max abs      KL  alarms  cases")
    for kind, found in sorted(worst.items()):
        alarms = sum(not case.passed for case in found)
        print(
            f"{kind:40} {_largest(found, 'max_abs'):>7} {_largest(found, 'kl'):>7} {alarms:7} "
            f"{len(found):6}"
        )
    return int(any(not case.passed for found in worst.values() for case in found))


def _largest(found: list[Measured], name: str) -> str:
    return f"{max(getattr(case, name) for case in found):.3f}"


if __name__ == "__main__":
    sys.exit(main())
