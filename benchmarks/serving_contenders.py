"""Servers that serving.py compares: what each one is, how it is started, and how it is asked."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers"
LLAMA = PEERS / "llama.cpp" / "bin"
TOOL = Path(sys.executable).with_name("gptoss-onnx")
PEER = "llama-server"
START_SECONDS = 300
ENDS = (199999, 200002, 200012)  # of gpt-oss: an answer that is measured must not end by itself


@dataclass(frozen=True)
class Contender:
    """A server: its command, in which PORT stands for the port, and what it is asked.

    `body` makes a request from a prompt and the tokens wanted; `count` says how many tokens an
    event of its stream brings.
    """

    name: str
    command: tuple[str, ...]
    path: str
    body: Callable[[list[int], int], dict[str, Any]]
    count: Callable[[Mapping[str, Any]], int]
    environment: Mapping[str, str] = field(default_factory=dict)


def contenders_in(
    package: Path, gguf: Path, slots: int, capacity: int, threads: int
) -> list[Contender]:
    """List the servers: llama.cpp's, then ours with exact and with bf16 activations."""
    words = (str(LLAMA / "llama-server"), "--model", str(gguf), "--port", "PORT")
    counts = ("--threads", str(threads), "--threads-batch", str(threads))
    rows = ("--parallel", str(slots), "--ctx-size", str(slots * capacity), "--no-webui")
    library = {"LD_LIBRARY_PATH": str(LLAMA)}
    peer = (*words, *counts, *rows)
    return [
        Contender(PEER, peer, "/completion", _their_body, _their_count, library),
        contender_of(package, "exact", slots, capacity, threads, ends=ENDS),
        contender_of(package, "bf16", slots, capacity, threads, ends=ENDS),
    ]


def contender_of(
    package: Path,
    activations: str,
    slots: int,
    capacity: int,
    threads: int,
    options: Sequence[str] = (),
    ends: Sequence[int] = (),
) -> Contender:
    """Return our server on a package; the tokens `ends` are never chosen."""
    words = (str(TOOL), "serve", str(package), "--port", "PORT", "--activations", activations)
    sizes = ("--slots", str(slots), "--capacity", str(capacity), "--threads", str(threads))
    return Contender(
        f"ours, {activations}",
        (*words, *sizes, *options),
        "/v1/completions",
        partial(_our_body, ends),
        _our_count,
    )


def _our_body(ends: Sequence[int], prompt: list[int], tokens: int) -> dict[str, Any]:
    never = {str(token): -100 for token in ends}
    usage = {"include_usage": True}
    settings = {"temperature": 0, "logit_bias": never, "stream_options": usage}
    return {"prompt": prompt, "max_tokens": tokens, "stream": True, **settings}


def _our_count(event: Mapping[str, Any]) -> int:
    usage = event.get("usage")
    return int(usage["completion_tokens"]) if usage else 0


def _their_body(prompt: list[int], tokens: int) -> dict[str, Any]:
    settings = {"temperature": 0, "ignore_eos": True, "cache_prompt": True}
    return {"prompt": prompt, "n_predict": tokens, "stream": True, **settings}


def _their_count(event: Mapping[str, Any]) -> int:
    return int(event.get("tokens_predicted", 0)) if event.get("stop") else 0


class RunningServer:
    """A server that takes requests on this machine; a context manager that ends it."""

    def __init__(self, contender: Contender, log: Path) -> None:
        self.contender = contender
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [str(port) if word == "PORT" else word for word in contender.command]
        self._log = log.open("w")
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(contender.environment),
        )
        self._wait(log)

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(self.url + "/health").status_code == 200:
                    return
            time.sleep(0.2)
        self.close()
        raise SystemExit(f"{self.contender.name}: did not start; its words are in {log}")

    async def events(
        self, client: httpx.AsyncClient, prompt: list[int], tokens: int
    ) -> AsyncIterator[tuple[float, dict[str, Any]]]:
        """Ask once, and yield each event of the answer with the time at which it came."""
        body = self.contender.body(prompt, tokens)
        async with client.stream("POST", self.url + self.contender.path, json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode()
                raise SystemExit(f"{self.contender.name}: {answer.status_code} {text[:300]}")
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    yield time.perf_counter(), json.loads(line.removeprefix("data: "))

    def memory(self) -> int:
        """Return the anonymous memory of the process, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
