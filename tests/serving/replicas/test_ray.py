"""`gptoss-onnx serve --replicas 2` on Ray Serve, in the environment of `ray_venv.sh`: what clients
see, also of a replica that is killed.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import APIError, AsyncOpenAI

from gptoss_onnx.exporter import Package
from support.serve_command import Served, served

PYTHON = Path(__file__).parents[3] / "build" / "ray" / "bin" / "python"
CLIENTS = 16
LONGEST_WAIT = 120  # seconds after which a test gives up instead of hanging
REPLICA = b"ray::ServeReplica:gptoss-onnx:Replica"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not PYTHON.exists(), reason="ray_venv.sh has not been run"),
]


@pytest.fixture(scope="module")
def server(demo_package: Package) -> Iterator[Served]:
    sizes = ("--capacity", 1024, "--slots", CLIENTS, "--model-name", "demo")
    with served(demo_package.folder, "--replicas", 2, *sizes, python=PYTHON) as running:
        yield running
        code, errors = running.stop()
    assert (code, errors.splitlines()[:1]) == (0, ["stopping"])


def replicas(server: Served) -> set[int]:
    """Return the process ids of the server's replicas."""
    parents, found = {}, set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            if (folder / "cmdline").read_bytes().startswith(REPLICA):
                found.add(int(folder.name))
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != server.process.pid:
            pid = parents[pid]
        return pid == server.process.pid

    return {pid for pid in found if is_ours(pid)}


class Asked:
    """One client's stream.

    Attributes:
        pieces: that came.
        end: the finish reason, or the error's message; None for a stream that ends without either.
    """

    def __init__(self) -> None:
        self.pieces = 0
        self.end: str | None = None
        self.begun = asyncio.Event()

    async def run(self, client: AsyncOpenAI, number: int) -> None:
        message = {"role": "user", "content": f"Emma and {number} more"}
        try:
            stream = await client.chat.completions.create(
                model="demo",
                messages=[message],  # type: ignore[list-item]
                stream=True,
                max_completion_tokens=800,
                temperature=1.5,
                seed=number,
            )
            async for chunk in stream:
                self.pieces += 1
                self.begun.set()
                self.end = chunk.choices[0].finish_reason or self.end
        except APIError as error:
            self.end = error.message
        self.begun.set()


async def ask_all(server: Served, victim: int | None) -> list[Asked]:
    """Let all clients ask at once; kill a process when each has been answered something."""
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        asked = [Asked() for _ in range(CLIENTS)]
        tasks = [asyncio.create_task(one.run(client, i)) for i, one in enumerate(asked)]
        if victim is not None:
            await asyncio.gather(*(one.begun.wait() for one in asked))
            os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*tasks)
    return asked


def test_turns_of_conversations_find_their_beginning(server: Served) -> None:
    for number in range(6):
        messages = [
            {"role": "system", "content": "You tell stories about the sea and about the children."},
            {"role": "user", "content": f"Emma and {number} more"},
        ]
        cached = []
        for _ in range(3):
            answer = httpx.post(
                f"{server.url}/v1/chat/completions",
                json={"messages": messages, "max_tokens": 12, "temperature": 0},
                timeout=LONGEST_WAIT,
            ).json()
            usage = answer["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
            text = answer["choices"][0]["message"]["content"] or "So"
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And"}]
        assert cached[0] < cached[1] < cached[2]


def test_an_earlier_response_is_found(server: Served) -> None:
    asked = {"input": "Emma", "max_output_tokens": 16}
    url = f"{server.url}/v1/responses"
    first = httpx.post(url, json=asked, timeout=LONGEST_WAIT).json()
    for _ in range(4):
        following = {**asked, "previous_response_id": first["id"]}
        assert httpx.post(url, json=following, timeout=LONGEST_WAIT).status_code == 200
        assert httpx.get(f"{url}/{first['id']}", timeout=LONGEST_WAIT).status_code == 200


def test_a_killed_replica_ends_its_streams_with_an_error_and_returns(server: Served) -> None:
    before = replicas(server)
    assert len(before) == 2
    victim = min(before)
    asked = asyncio.run(ask_all(server, victim))
    ends = [one.end for one in asked]
    lost = [one for one in asked if one.end and "has ended" in one.end]
    print(f"{len(lost)} of {CLIENTS} streams lost; pieces before: {[one.pieces for one in lost]}")
    assert 0 < len(lost) < CLIENTS, ends
    assert all(one.pieces > 0 for one in lost)
    assert all(one.end in ("stop", "length") for one in asked if one not in lost), ends
    asyncio.run(returned(server, before - {victim}))
    asked = asyncio.run(ask_all(server, None))
    assert [one for one in asked if one.end not in ("stop", "length")] == []


async def returned(server: Served, left: set[int]) -> None:
    """Wait until there are two replicas again, and the new one has answered."""
    async with asyncio.timeout(LONGEST_WAIT):
        while len(replicas(server) - left) < 1:
            await asyncio.sleep(0.1)
        while any(one.end not in ("stop", "length") for one in await ask_all(server, None)):
            await asyncio.sleep(0.5)
