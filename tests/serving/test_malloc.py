"""What glibc's malloc keeps of what was freed, in a process of its own."""

import platform
import re
import subprocess
import sys

import pytest

# Threads take turns at a large request each; what each has freed is nobody's any more.
THREADS = """
import sys, threading, time
from pathlib import Path
from gptoss_onnx.serving import malloc
from gptoss_onnx.serving.malloc import bound_malloc
way, held = sys.argv[1], []
if way != "plain":
    assert bound_malloc({})
    assert not bound_malloc({"MALLOC_ARENA_MAX": "4"})
if way == "trimmed":
    malloc._TRIM_SECONDS = 0.05
    malloc.trim_malloc()
bytearray(30_000_000)  # malloc learns that such pieces are common
begin = threading.Barrier(16)
def work():
    begin.wait()
    pieces = [bytearray(b"x") * 200_000 for _ in range(40)]
    begin.wait()
    if way in ("held", "trimmed"):
        held.extend(pieces[::8])  # they keep what lies between them from being given back
    del pieces
    begin.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
time.sleep(0.5 if way == "trimmed" else 0)
for line in Path("/proc/self/status").read_text().splitlines():
    print(line)
"""


def resident(way: str) -> int:
    """Return what is left of 128 MB that were freed, in kB."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS, way], capture_output=True, text=True, check=True
    )
    found = re.search(r"^VmRSS:\s+(\d+)", done.stdout, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_what_threads_have_freed_goes_back() -> None:
    assert resident("bounded") < resident("plain") - 50_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_what_lies_between_pieces_in_use_goes_back_in_time() -> None:
    assert resident("trimmed") < resident("held") - 50_000
