"""A program that spoils copies of a folder and gives each to the command line: one line and exit 2,
or success.

Each runs in a fork, so that a crash, a hang or gigabytes of memory are seen as such. Prints one
JSON document: how many ended in which way, and what was found wrong.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from gptoss_onnx.cli import main as command_line
from gptoss_onnx.exporter import export, golden
from mutations.mutate import spoil
from support.made_once import made_once

SECONDS = 10
MOST_SECONDS = 60  # for a command that computes on a machine with little time for it
BYTES = 1 << 30  # more than before the command began
BUG = "a bug: please report it"


def main(kind: str, source: str, scratch: str, first: str, count: str) -> None:
    """Spoil `count` copies of `source` with the seeds from `first` on."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    golden.GREEDY_TOKENS, golden.LONGEST = 2, 20  # what is proved here is not the golden vectors
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    with made_once(Path(scratch, "kept")):
        if kind == "checkpoint":
            export(source, Path(scratch, "warm"))
        for seed in range(int(first), int(first) + int(count)):
            folder = Path(scratch, "spoilt")
            end, problem, done = _one(kind, Path(source), folder, seed)
            # a machine may have its moments: once more before it is called late
            if problem == "late":
                end, problem, done = _one(kind, Path(source), folder, seed)
            ends[end] += 1
            if problem:
                wrong.append(f"seed {seed}: {done}: {problem}")
    print(json.dumps({"ends": ends, "wrong": wrong}))


def _one(kind: str, source: Path, folder: Path, seed: int) -> tuple[str, str, str]:
    """Return how one command ended, what is wrong with that, and what was spoilt."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    done = spoil(folder, seed)
    words = _words(kind, folder, seed)
    said = folder.with_name("said")
    begin = time.perf_counter()
    fork = os.fork()
    if fork == 0:
        _run(words, said)
    status, used = _wait(fork, begin)
    if status is None:
        return "late", "late", f"{done} ({' '.join(words)})"
    code = os.waitstatus_to_exitcode(status)
    return (
        f"exit {code}",
        _problem(code, said.read_text(errors="replace"), used),
        f"{done} ({' '.join(words)})",
    )


def _words(kind: str, folder: Path, seed: int) -> list[str]:
    if kind == "checkpoint":
        return [
            "export",
            str(folder),
            "--output",
            f"{folder}-package",
            "--force",
            "--weights",
            "copy",
        ]
    package = str(folder)
    short = ["--max-new-tokens", "2", "--threads", "1"]
    return [
        ["inspect", package],
        ["generate", package, "--prompt-tokens", "1,2,3", *short],
        ["generate", package, "--prompt", "It was", *short, "--kernels", "portable"],
        ["generate", package, "--chat", "--prompt", "It was", *short],
    ][seed % 4]


def _run(words: list[str], said: Path) -> None:
    """Run the command in this fork and end with its exit code."""
    with said.open("wb") as file, open(os.devnull, "wb") as nothing:  # noqa: PTH123 - no Path of a device
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        command_line(words, prog_name="gptoss-onnx")
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException as error:  # noqa: BLE001 - what must not come out
        print(
            f"{type(error).__name__} came out of the command line: {error}",
            file=sys.stderr,
            flush=True,
        )
    os._exit(99)


def _wait(fork: int, begin: float) -> tuple[int | None, Any]:
    """Return the status of a fork and what it used; None and no use where it had to be killed.

    Tests that run beside this one take its seconds, so a fork that has computed all the while may
    go on until it has computed for `SECONDS`.
    """
    while (waited := time.perf_counter() - begin) < SECONDS or _is_starved(fork, waited):
        ended, status, used = os.wait4(fork, os.WNOHANG)
        if ended:
            return status, used
        time.sleep(0.002)
    os.kill(fork, signal.SIGKILL)
    os.wait4(fork, 0)
    return None, None


def _is_starved(fork: int, waited: float) -> bool:
    """Say whether a process waits for a processor rather than for a file."""
    numbers = Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()
    computed = (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
    return waited < MOST_SECONDS and waited / 5 < computed < SECONDS


def _problem(code: int, said: str, used: Any) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    more = (used.ru_maxrss - before) * 1024
    if more > BYTES:
        return f"it took {more >> 20} MiB"
    if BUG in said or "Traceback" in said:
        return said[:500]
    lines = [line for line in said.splitlines() if not line.startswith(("note:", "warning:"))]
    if code == 0:
        return ""
    if code != 2 or len([line for line in lines if line.startswith("error: ")]) != 1:
        return f"exit {code}: {said[:500]}"
    if len(lines) != 1 or any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in lines[0]):
        return f"more than one line: {said[:500]!r}"
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
