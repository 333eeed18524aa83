"""Call, refuse, create and close again and again, and watch memory.

    python tests/fuzz/leaks.py [LIBRARY]

Exits with 1 where what is allocated keeps growing. Leaks are counted so because Python and ONNX
Runtime keep memory until the process ends, which a leak checker would report; and by glibc's own
count, since resident memory grows in steps that have other causes.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that this file can be run by its path
from fuzz.case import Case
from fuzz.draw import draw
from fuzz.memory import Call
from fuzz.worker import Sessions
from support.allocated import allocated_bytes
from support.native_levels import LIBRARY

# Repetitions of each kind, and bytes that each may add. A call adds nothing, and a session less
# than one kernel takes. What ONNX Runtime allocates for refusals it frees all at once, 0.4 MB after
# one or two thousand of them: so they are repeated until the message of one error would show beside
# that, and the lowest points of runs are compared.
RUNS = 3  # at most
SAMPLES = 50  # a run
CALLS = 1000, 16
REFUSALS = 3000, 128
SESSIONS = 50, 512


def main() -> int:
    """Return 0 where memory stays level."""
    library = sys.argv[1] if len(sys.argv) > 1 else str(LIBRARY)
    cases = sorted(one_case_of_each_kind(Sessions(library)).items())
    growing = 0
    gc.collect()
    gc.freeze()  # what was imported stays, and is not to be walked by each collection
    for (op, error), case in cases:
        kind = f"{op} {'refused' if error else 'computed'}"
        call = Call(Sessions(library).session(case), case)
        growing += grows(kind, lambda call=call: run(call), *(REFUSALS if error else CALLS))
        if not error:
            growing += grows(
                f"{op} session", lambda case=case: Sessions(library).session(case), *SESSIONS
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
    """Say whether each of `times` repetitions adds more than `bytes_each`.

    What leaks grows in every run, so the first run that stays level ends the question; ONNX
    Runtime's pools grow now and then, once.
    """
    before, allowed = lowest_point(action, times), bytes_each * times
    for _ in range(RUNS - 1):
        after = lowest_point(action, times)
        growth, before = after - before, after
        print(
            f"{kind}: allocated memory grew by {growth} bytes in {times} times, at most {allowed}",
            flush=True,
        )
        if growth <= allowed:
            return False
    return True


def lowest_point(action: Callable[[], object], times: int) -> int:
    """Return the least memory that was allocated while `action` was repeated."""
    gc.collect()
    found = []
    for _ in range(SAMPLES):
        for _ in range(times // SAMPLES):
            action()
        found.append(allocated_bytes())
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
