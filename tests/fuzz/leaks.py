"""Call, refuse, create and close again and again, and watch memory.

    python tests/fuzz/leaks.py [LIBRARY]

Exits with 1 where the process keeps growing. Leaks are counted so because Python and ONNX Runtime keep memory until
the process ends, which a leak checker would report.
"""

import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that this file can be run by its path
from fuzz.case import Case
from fuzz.draw import draw
from fuzz.memory import Call
from fuzz.worker import Sessions
from support.native_levels import LIBRARY

# Repetitions a round, and bytes that each may add: fewer than the message of one error takes, or one kernel with its
# session. Allocators grow in steps now and then; what leaks grows in every round, so the median round is judged, and
# measured anew before it is called a leak: steps have been seen in two rounds of three.
ROUNDS = 3
CALLS, BYTES_PER_CALL = 500, 64
SESSIONS, BYTES_PER_SESSION = 10, 4096


def main() -> int:
    """Return 0 where memory stays level."""
    library = sys.argv[1] if len(sys.argv) > 1 else str(LIBRARY)
    growing = 0
    for (op, error), case in sorted(one_case_of_each_kind(Sessions(library)).items()):
        kind = f"{op} {'refused' if error else 'computed'}"
        call = Call(Sessions(library).session(case), case)
        growing += grows(kind, lambda call=call: run(call), CALLS, BYTES_PER_CALL)
        if not error:
            growing += grows(
                f"{op} session", lambda case=case: Sessions(library).session(case), SESSIONS, BYTES_PER_SESSION
            )
    return 1 if growing else 0


def one_case_of_each_kind(sessions: Sessions) -> dict[tuple[str, bool], Case]:
    """Return the first drawn case of each op, computed and refused, that needs no second thread."""
    found: dict[tuple[str, bool], Case] = {}
    for seed in range(400):
        case = draw(seed)
        kind = case.op, case.error is not None
        allocation_fails = case.error == case.op
        if (
            case.threads == 1
            and not case.in_place
            and not allocation_fails
            and kind not in found
            and opens(sessions, case)
        ):
            found[kind] = case
    return found


def opens(sessions: Sessions, case: Case) -> bool:
    """Say whether the case's attributes are right, so that its session opens."""
    try:
        return sessions.session(case) is not None
    except Exception:  # noqa: BLE001 - ONNX Runtime raises many types
        return False


def run(call: Call) -> None:
    """Run a call, refused or not."""
    try:
        call.run()
    except RuntimeError:  # the refusal
        return


def grows(kind: str, action: Callable[[], object], times: int, bytes_each: int) -> bool:
    """Say whether each of `times` repetitions adds more than `bytes_each`, and does so again."""
    return all(median_grows(kind, action, times, bytes_each) for _ in range(2))


def median_grows(kind: str, action: Callable[[], object], times: int, bytes_each: int) -> bool:
    """Say whether in the median round each of `times` repetitions adds more than `bytes_each`."""
    sizes = []
    for _ in range(ROUNDS + 1):
        for _ in range(times):
            action()
        gc.collect()
        sizes.append(resident_bytes())
    growth = median(after - before for before, after in pairwise(sizes))
    print(f"{kind}: resident memory grew by {growth} bytes in {times} times, at most {bytes_each * times}")
    return growth > bytes_each * times


def resident_bytes() -> int:
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status: found no VmRSS, expected Linux")


if __name__ == "__main__":
    sys.exit(main())
