"""What whole_model.py found: times, and a table of them."""

import statistics
from dataclasses import dataclass, field

from results import ratio

PEER = "llama.cpp"
STOCK = "stock ONNX Runtime 1.32 fp4"
PREFILL = 512


@dataclass
class Times:
    """Seconds that one contender took, one number a round: each the median of the round's steps."""

    opened_in: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    anonymous_at_open: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    decode_8k: list[float] = field(default_factory=list)
    read_gb_s: list[float] = field(default_factory=list)  # plain reads between the steps


def table(times: dict[str, Times]) -> str:
    """Return one line a contender: medians over the rounds, and speedups over llama.cpp and over
    stock ONNX Runtime in the same rounds.
    """
    lines = []
    peers = [times.get(PEER), times.get(STOCK)]
    for name, entry in times.items():
        line = f"{name:38} opens {statistics.median(entry.opened_in):5.1f} s"
        line += f", first token {statistics.median(entry.first_token):5.2f} s"
        line += f", anonymous {statistics.median(entry.anonymous_at_open) / 1e6:6.0f} MB at open"
        line += f", {statistics.median(entry.anonymous) / 1e6:6.0f} MB"
        for part, tokens in (("prefill", PREFILL), ("decode", 1), ("decode_8k", 1)):
            seconds = getattr(entry, part)
            if seconds:
                speed = tokens / statistics.median(seconds)
                ratios = [_speedup(peer and getattr(peer, part), seconds) for peer in peers]
                line += f", {part} {speed:6.1f} tokens/s {ratios[0]:>6} {ratios[1]:>6}"
        lines.append(f"{line}, read {statistics.median(entry.read_gb_s):5.1f} GB/s")
    return "\n".join(lines)


def _speedup(peer: list[float] | None, ours: list[float]) -> str:
    if peer is None or len(peer) != len(ours):
        return ""
    return f"{ratio(peer, ours):.2f}×"
