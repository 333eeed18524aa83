"""The measuring loops of the native library: they run, at every place and size, and count what they
did.
"""

import numpy as np
import pytest

from gptoss_onnx.bench import machine
from gptoss_onnx.custom_ops import library
from gptoss_onnx.errors import InputError, RuntimeUnavailable

built = pytest.mark.skipif(
    library.library_path() is None, reason="the native library was not built"
)


@built
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_reading_takes_time_wherever_the_bytes_lie(threads: int) -> None:
    memory = np.ones(3 << 20, np.uint8)
    for offset, count in (
        (0, 1),
        (1, 63),
        (3, 511),
        (64, 4096),
        (7, 1 << 20),
        (0, memory.size),
        (1, memory.size - 1),
    ):
        assert machine.read_seconds(memory.ctypes.data + offset, count, threads) >= 0
    assert machine.read_seconds(memory.ctypes.data, memory.size, threads) > 0


@built
def test_a_machine_has_bandwidth_and_a_peak_or_none_for_each_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "READ_BYTES", 1 << 20)
    found = machine.measure(threads=2)
    assert found.threads == 2
    assert found.read_gb_s > 0
    peaks = (
        found.fma_gflops,
        found.bf16_gflops,
        found.int8_gops,
        found.int16_gops,
        found.amx_bf16_gflops,
        found.amx_int8_gops,
    )
    assert all(peak is None or peak > 0 for peak in peaks)


@built
def test_no_threads_is_named() -> None:
    memory = np.ones(64, np.uint8)
    with pytest.raises(InputError, match="threads: found 0, expected at least 1"):
        machine.read_seconds(memory.ctypes.data, memory.size, 0)


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    machine._functions.cache_clear()
    with pytest.raises(RuntimeUnavailable, match="reinstall"):
        machine.measure(threads=1)
