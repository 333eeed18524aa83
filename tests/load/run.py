"""Put a server under load, and say whether it kept its promises.

    PYTHONPATH=tests python -m load.run demo/package --clients 200 --seconds 600

No answer other than those asked for, no row that stays taken, every answer that was admitted comes
to its end, memory that does not grow once what it keeps is full, and the server stops in peace.
Exit code 1 where one is broken.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import httpx

from load.clients import REQUEST_SECONDS, Client, Seen
from load.server import Memory, ServerProcess, numbers, watch

MOST_GROWTH = 0.02
LONG_ENOUGH = 120  # seconds; in fewer, caches are still being filled
PREFIX_BYTES = 20_000_000
FULL = 0.9  # of them: no row of these clients takes a tenth
END_SECONDS = 60
SHOWN = 10


def main() -> None:
    """Run, print what was seen, and exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    faults = load(arguments.package, arguments.clients, arguments.seconds)
    sys.exit(1 if faults else 0)


def load(package: Path, clients: int, seconds: float) -> list[str]:
    """Return what went wrong, and print what was seen."""
    options = ("--slots", "8", "--capacity", "512", "--max-queue", "64", "--threads", "1")
    with ServerProcess(package, *options, "--prefix-cache", str(PREFIX_BYTES)) as server:
        seen, memory = asyncio.run(_run(server, clients, seconds))
        at_end = _quiet(server.url)
        code = server.stop()
    faults = list(seen.faults)
    for name in ("slots_active", "queue", "prefilling", "requests_active"):
        if at_end[f"gptoss_{name}"]:
            faults.append(f"{name}: found {at_end[f'gptoss_{name}']:g} at the end, expected 0")
    submitted, ended = at_end["gptoss_submitted_total"], at_end["gptoss_finished_total"]
    if submitted != ended:
        faults.append(f"answers: {submitted:g} were admitted, {ended:g} ended")
    if seconds >= LONG_ENOUGH:
        faults += _memory_faults(memory)
    if code != 0:
        faults.append(f"exit code: found {code}, expected 0")
    print(", ".join(f"{count} {what}" for what, count in sorted(seen.counts.items())))
    for name in ("all", "own"):
        tenths = ", ".join(f"{getattr(part, name) / 1e6:.1f}" for part in memory.curve())
        print(f"memory, {name}: {tenths} MB")
    print(f"memory: growth in the last half {memory.growth():+.1%}")
    print(
        f"answers: {submitted:g} admitted, {ended:g} ended; "
        f"{at_end['gptoss_generated_tokens_total']:g} tokens; "
        f"{at_end['gptoss_prefix_hits_total']:g} prompts began with a saved row"
    )
    for fault in faults[:SHOWN]:
        print(f"FAULT: {fault}")
    if faults[SHOWN:]:
        print(f"and {len(faults) - SHOWN} more")
    return faults


def _memory_faults(memory: Memory) -> list[str]:
    faults = []
    if memory.growth() > MOST_GROWTH:
        faults.append(f"memory: grew by {memory.growth():.1%}, expected {MOST_GROWTH:.0%} at most")
    if memory.saved_at_half < FULL * PREFIX_BYTES:
        faults.append(
            f"memory: at the half rows of {memory.saved_at_half:g} bytes were saved, expected the "
            f"{PREFIX_BYTES} that there is room for: ask for more --seconds"
        )
    return faults


async def _run(server: ServerProcess, clients: int, seconds: float) -> tuple[Seen, Memory]:
    seen = Seen()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=REQUEST_SECONDS, limits=limits
    ) as http:
        asking = [Client(number, http, seen).run(seconds) for number in range(clients)]
        watching = asyncio.create_task(watch(server, seconds))
        await asyncio.gather(*asking)
        return seen, await watching


def _quiet(url: str) -> dict[str, float]:
    """Wait until nothing is in work, as it is soon after the last client; return the metrics."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        found = numbers(url)
        busy = found["gptoss_slots_active"] + found["gptoss_queue"] + found["gptoss_prefilling"]
        if not busy or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


if __name__ == "__main__":
    main()
