"""How much memory this process has allocated, by glibc's own count.

Resident memory grows and shrinks in steps that have other causes; what is allocated and not freed
is exact. Untouched zeros count as well.
"""

import ctypes
from typing import ClassVar

import pytest

_MALLINFO = getattr(ctypes.CDLL(None), "mallinfo2", None)
needs_glibc = pytest.mark.skipif(_MALLINFO is None, reason="no glibc 2.33 counts what is allocated")


class _MallInfo(ctypes.Structure):
    """What mallinfo2 of glibc returns, over all arenas; see its manual page."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",  # bytes in blocks of their own
            "usmblks",
            "fsmblks",
            "uordblks",  # bytes of arenas that are in use
            "fordblks",
            "keepcost",
        )
    ]


def allocated_bytes() -> int:
    """Return how many bytes of this process's memory are allocated and not freed."""
    assert _MALLINFO is not None, "guard the test with needs_glibc"
    _MALLINFO.restype = _MallInfo
    info = _MALLINFO()
    return int(info.hblkhd + info.uordblks)
