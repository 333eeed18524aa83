"""How much memory there is to take: of the machine, and of control groups of both versions."""

from pathlib import Path

import pytest

from gptoss_onnx.memory import MemoryRoom, memory_room, own_bytes

MIB = 1 << 20
MACHINE = MemoryRoom(1024 * MIB, "this machine")


def group_room(mebibytes: int) -> MemoryRoom:
    return MemoryRoom(mebibytes * MIB, "the control group of this process")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The `proc` of a machine with 1 GiB left, whose process is in no group."""
    write(tmp_path / "proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
    write(tmp_path / "proc/self/cgroup", "")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version_2(folder: Path, limit: str, usage: int, pages: int) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{usage}\n")
    statistics = f"anon 7\ninactive_file {pages // 2}\nactive_file {pages // 2}\nshmem 9\n"
    write(folder / "memory.stat", statistics)


def version_1(folder: Path, limit: int, usage: int, pages: int) -> None:
    write(folder / "memory.limit_in_bytes", f"{limit}\n")
    write(folder / "memory.usage_in_bytes", f"{usage}\n")
    statistics = f"active_file 5\ntotal_inactive_file {pages}\ntotal_active_file 0\n"
    write(folder / "memory.stat", statistics)


def test_a_machine_alone(root: Path) -> None:
    assert memory_room(root) == MACHINE


def test_a_group_whose_pages_of_files_count_as_free(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/service\n")
    version_2(root / "sys/fs/cgroup/service", str(600 * MIB), 500 * MIB, 100 * MIB)
    assert memory_room(root) == group_room(200)


def test_the_group_around_it_has_less(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/outer/inner\n")
    version_2(root / "sys/fs/cgroup/outer/inner", "max", 10 * MIB, 0)
    version_2(root / "sys/fs/cgroup/outer", str(300 * MIB), 200 * MIB, 0)
    assert memory_room(root) == group_room(100)


def test_a_container_that_does_not_see_its_own_path(root: Path) -> None:
    write(root / "proc/self/cgroup", "12:cpu,cpuacct:/x\n4:memory:/docker/0123\n")
    version_1(root / "sys/fs/cgroup/memory", 300 * MIB, 200 * MIB, 50 * MIB)
    assert memory_room(root) == group_room(150)


def test_a_group_without_a_limit(root: Path) -> None:
    write(root / "proc/self/cgroup", "4:memory:/a\n0::/a\n")
    version_1(root / "sys/fs/cgroup/memory/a", 9223372036854771712, 200 * MIB, 0)
    version_2(root / "sys/fs/cgroup/a", "max", 200 * MIB, 0)
    assert memory_room(root) == MACHINE


def test_a_group_that_is_full(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/a\n")
    version_2(root / "sys/fs/cgroup/a", str(100 * MIB), 101 * MIB, 0)
    assert memory_room(root) == group_room(0)


def test_what_a_process_holds_is_no_page_of_a_file(root: Path) -> None:
    write(root / "proc/self/status", "VmRSS:\t  900 kB\nRssAnon:\t  300 kB\nRssFile:\t 600 kB\n")
    assert own_bytes(root) == 300 * 1024


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None
    assert own_bytes(tmp_path) is None


def test_this_machine_has_some() -> None:
    room = memory_room()
    assert room is not None
    assert room.size > 16 * MIB
    assert room.words.endswith(" left")
    before = own_bytes()
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * (len(held) // 4096)
    after = own_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 50 * MIB
