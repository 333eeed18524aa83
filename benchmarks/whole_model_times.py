"""What whole_model.py starts, and what it found: contenders, their times, and a table."""

import os
import statistics
from dataclasses import dataclass, field

from results import ratio
from worker import Worker

PEER = "llama.cpp"
PREFILL = 512


@dataclass(frozen=True)
class Contender:
    """One process: what it is called, and how it is started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> Worker:
        """Start it and wait until its model is open."""
        return Worker(self.command, os.environ | self.environment)


@dataclass
class Times:
    """Seconds that one contender took, one number a round: each the median of the round's steps."""

    opened_in: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    decode_8k: list[float] = field(default_factory=list)
    read_gb_s: list[float] = field(default_factory=list)  # plain reads between the steps


def table(times: dict[str, Times]) -> str:
    """Return one line a contender: medians over the rounds, and speedups over the peer in the same
    rounds.
    """
    lines = []
    peer = times.get(PEER)
    for name, entry in times.items():
        line = f"{name:18} opens {statistics.median(entry.opened_in):5.1f} s"
        line += f", first token {statistics.median(entry.first_token):5.2f} s"
        line += f", anonymous {statistics.median(entry.anonymous) / 1e6:6.0f} MB"
        for part, tokens in (("prefill", PREFILL), ("decode", 1), ("decode_8k", 1)):
            seconds = getattr(entry, part)
            if seconds:
                speed = tokens / statistics.median(seconds)
                speedup = _speedup(peer and getattr(peer, part), seconds)
                line += f", {part} {speed:6.1f} tokens/s {speedup:>6}"
        lines.append(f"{line}, read {statistics.median(entry.read_gb_s):5.1f} GB/s")
    return "\n".join(lines)


def _speedup(peer: list[float] | None, ours: list[float]) -> str:
    if peer is None or len(peer) != len(ours):
        return ""
    return f"{ratio(peer, ours):.2f}×"
