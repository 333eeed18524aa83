"""The server under load: a process whose memory is watched, and what it says of itself."""

import asyncio
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 120
PAGE = re.compile(r"^page\s+(\S+)$", re.MULTILINE)
SAMPLE = re.compile(r"^(gptoss_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class ServerProcess:
    """`gptoss-onnx serve` on a free port; a context manager that stops it."""

    def __init__(self, package: Path, *options: str) -> None:
        code = "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"
        command = [sys.executable, "-c", code, "serve", str(package), "--port", "0", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self._address()

    def _address(self) -> str:
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if line.startswith("ready"):
                found = PAGE.search(said)
                assert found is not None, said
                return found[1]
        raise RuntimeError(f"the server did not start: {said}")

    def resident(self) -> int:
        """Return the memory that the process has, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]

    def stop(self) -> int:
        """Tell it to stop, and return its exit code."""
        self._process.terminate()
        return self._process.wait(60)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Memory:
    """Samples of a process's memory, in bytes, one a second."""

    samples: list[int]

    def growth(self) -> float:
        """Return the last tenth's median over that of the second tenth, minus one: what came with
        the first requests stays, and is no leak.
        """
        tenth = max(1, len(self.samples) // 10)
        begin = statistics.median(self.samples[2 * tenth : 3 * tenth] or self.samples)
        return statistics.median(self.samples[-tenth:]) / begin - 1


async def watch(server: ServerProcess, seconds: float) -> Memory:
    """Sample the memory for a while."""
    memory = Memory([])
    for _ in range(max(1, int(seconds))):
        await asyncio.sleep(1)
        memory.samples.append(server.resident())
    return memory


def numbers(url: str) -> dict[str, float]:
    """Return the server's metrics, with those of all labels added up."""
    found: dict[str, float] = {}
    for name, _, value in SAMPLE.findall(httpx.get(url + "/metrics").text):
        found[name] = found.get(name, 0.0) + float(value)
    return found
