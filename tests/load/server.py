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
METRICS_SECONDS = 60
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

    def resident(self) -> "Resident":
        """Return the memory that the process has."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE))
        return Resident(1024 * int(found["VmRSS"]), 1024 * int(found["RssAnon"]))

    def stop(self) -> int:
        """Tell it to stop, and return its exit code."""
        self._process.terminate()
        return self._process.wait(60)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Resident:
    """Memory of a process, in bytes: all of it, and its own, which is no file's."""

    all: int
    own: int


@dataclass
class Memory:
    """Samples of a process's memory, one a second, and the bytes of saved rows at the half."""

    samples: list[Resident]
    saved_at_half: float = 0.0

    def curve(self) -> list[Resident]:
        """Return the medians of ten parts of the time."""
        many = len(self.samples)
        parts = [self.samples[part * many // 10 : (part + 1) * many // 10] for part in range(10)]
        return [
            Resident(
                int(statistics.median(sample.all for sample in part)),
                int(statistics.median(sample.own for sample in part)),
            )
            for part in parts
            if part
        ]

    def growth(self) -> float:
        """Return by what part it grew in the last half, in which no bounded cache fills any more:
        the last tenth's median over the sixth's, minus one. Of all memory and of the process's own,
        whichever grew more.
        """
        curve = self.curve()
        begin, end = curve[len(curve) // 2], curve[-1]
        return max(end.all / begin.all, end.own / begin.own) - 1


async def watch(server: ServerProcess, seconds: float) -> Memory:
    """Sample the memory for a while."""
    memory, most = Memory([]), max(1, int(seconds))
    for second in range(most):
        await asyncio.sleep(1)
        memory.samples.append(server.resident())
        if second == most // 2:
            found = await asyncio.to_thread(numbers, server.url)
            memory.saved_at_half = found["gptoss_prefix_bytes"]
    return memory


def numbers(url: str) -> dict[str, float]:
    """Return the server's metrics, with those of all labels added up."""
    found: dict[str, float] = {}
    for name, _, value in SAMPLE.findall(httpx.get(url + "/metrics", timeout=METRICS_SECONDS).text):
        found[name] = found.get(name, 0.0) + float(value)
    return found
