"""no_collection: what is made inside counts as old, and garbage among it is still found."""

import gc
import subprocess
import sys

import pytest

from gptoss_onnx.collection import no_collection

# in a process of its own, since the tests' own imports are frozen
MADE = """
import gc, weakref
from gptoss_onnx.collection import no_collection

class Ring:
    def __init__(self):
        self.itself = self

{before}
with no_collection():
    assert not gc.isenabled()
    kept, gone = Ring(), Ring()
    lost = weakref.ref(gone)
    del gone
assert gc.isenabled()
frozen = gc.get_freeze_count()
old = any(one is kept for one in gc.get_objects(generation=2))
gc.collect()
print(frozen > 0, old, lost() is None)
"""


@pytest.mark.parametrize(
    ("before", "expected"), [("", "False True True"), ("gc.freeze()", "True False True")]
)
def test_what_was_made_is_old_and_what_was_lost_is_found(before: str, expected: str) -> None:
    code = MADE.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_a_collector_that_is_off_stays_off() -> None:
    enabled = gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        if enabled:
            gc.enable()
