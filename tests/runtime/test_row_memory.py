"""The memory of saved rows goes back to the system with them."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.row_memory import BlockMemory

MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)


def is_mapped(address: int) -> bool:
    maps = MAPPING.findall(Path("/proc/self/maps").read_text(encoding="utf-8"))
    return any(int(begin, 16) <= address < int(end, 16) for begin, end in maps)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("elements", [1, 3_000, 50_000, 2_000_000])
def test_pages_of_a_row_go_back_with_its_last_block(elements: int) -> None:
    """Also those that malloc would keep: it lets go of what lies at the end of its heap alone."""
    memory = BlockMemory(elements + 4, "float32")
    first, last = memory.take((1, 2, 2)), memory.take((1, elements, 1))
    address = first.ctypes.data
    del memory, first
    assert is_mapped(address)
    last[:] = 1
    del last
    assert not is_mapped(address)


def test_blocks_are_zeros_one_behind_the_other() -> None:
    memory = BlockMemory(10, "float16")
    blocks = [memory.take((1, 3, 2)), memory.take((2, 1, 2))]
    assert all(not block.any() and block.dtype == np.float16 for block in blocks)
    assert blocks[1].ctypes.data - blocks[0].ctypes.data == 12
    assert blocks[0].flags.writeable
    assert BlockMemory(0, "float32").take((2, 0, 4)).shape == (2, 0, 4)


def test_no_memory_for_a_row() -> None:
    with pytest.raises(RuntimeUnavailable, match="no memory for a row of"):
        BlockMemory(1 << 58, "float32").take((1, 1, 1))
