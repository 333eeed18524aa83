"""Let glibc give memory back that threads have used for a while."""

import ctypes
import os
import threading
import time
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_ARENAS = 2
# Bytes. Larger pieces are pages of their own, which go back at once. Smaller ones, such as the
# logits of a row, are taken again and again, and would be slow to get from the system each time.
_PIECE = 4 << 20
_TRIM_SECONDS = 15.0
_CHOSEN = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def bound_malloc(environ: Mapping[str, str]) -> bool:
    """Bound what glibc's malloc keeps of what was freed, and say whether it was: not where there
    is another malloc, or where the operator has chosen in the environment.

    By itself it has up to eight arenas a core, and keeps up to 64 MB at the end of each once some
    large piece has been freed: a server's memory creeps up for as long as its threads take turns at
    their largest requests. For a process that begins to serve, before its threads begin.
    """
    libc = _glibc()
    if libc is None or any(name in environ for name in _CHOSEN):
        return False
    values = {_M_ARENA_MAX: _ARENAS, _M_MMAP_THRESHOLD: _PIECE, _M_TRIM_THRESHOLD: _PIECE}
    return all(libc.mallopt(name, value) == 1 for name, value in values.items())


def trim_malloc() -> None:
    """Give back every free page of glibc's malloc from now on, again and again, in a thread that
    ends with the process; nothing where there is another malloc.

    Pieces that live long lie between others that are freed, so an arena stretches although no more
    is in use. Its empty pages are of no use until as much is needed again, and cost a page fault
    each then.
    """
    libc = _glibc()
    if libc is not None:
        threading.Thread(target=_trim, args=(libc,), name="malloc-trim", daemon=True).start()


def _trim(libc: ctypes.CDLL) -> None:
    while True:
        time.sleep(_TRIM_SECONDS)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
