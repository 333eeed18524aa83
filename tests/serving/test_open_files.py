"""The limit of open files, in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from gptoss_onnx.serving.open_files import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
connections = allow_connections(*map(int, sys.argv[3:]))
print(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def run(*numbers: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_the_limit_is_raised_as_far_as_is_needed_and_allowed() -> None:
    assert run(256, 4096, 1000).stdout.split() == ["1000", "1264"]
    assert run(2048, 4096, 1000).stdout.split() == ["1000", "2048"]
    refused = run(256, 1024, 1000)
    assert refused.returncode != 0
    assert "--max-connections: found 1000" in refused.stderr
    assert "expected 760 at most" in refused.stderr
    assert run(256, 1024, 760).stdout.split() == ["760", "1024"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_where_nobody_asked_the_limit_decides() -> None:
    assert run(256, 4096).stdout.split() == ["1000", "1264"]
    assert run(256, 1024).stdout.split() == ["760", "1024"]
