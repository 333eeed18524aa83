"""How long running streams wait for their next token while long prompts arrive.

    python benchmarks/serving_gaps.py demo/package --seconds 30

Some clients read long streams; another one sends one long prompt after the other, whose answers
have one token. The time of a chunk is what the server says it has spent on prompts, by the number
of chunks. A stream should never wait for longer than a chunk and a step of its own.
"""

import argparse
import asyncio
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from serving_contenders import RunningServer, contender_of

SECONDS = 600  # that one request may take
SPENT = re.compile(r"^gptoss_prefill_seconds_total (\S+)$", re.MULTILINE)
TOKENS = re.compile(r"^gptoss_prompt_tokens_total (\S+)$", re.MULTILINE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of a long prompt")
    parser.add_argument("--tokens", type=int, default=512, help="of each stream's answers")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=1000, help="ids to draw prompts from")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    options = ("--chunk", str(arguments.chunk), "--prefix-cache", "0")
    capacity = arguments.prompt + arguments.tokens
    contender = contender_of(
        arguments.package, "exact", arguments.streams + 1, capacity, arguments.threads, options
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningServer(contender, Path(folder) / "server.log") as server,
    ):
        calm, _ = asyncio.run(_run(server, arguments, with_prompts=False))
        before = _numbers(server.url)
        gaps, prompts = asyncio.run(_run(server, arguments, with_prompts=True))
        after = _numbers(server.url)
    spent, tokens = (end - begin for begin, end in zip(before, after, strict=True))
    chunk = spent / (tokens / arguments.chunk)
    print(f"a chunk of {arguments.chunk} tokens: {1e3 * chunk:.1f} ms; {prompts} long prompts")
    for name, found in (("alone", calm), ("while prompts arrive", gaps)):
        p99 = statistics.quantiles(found, n=100)[98]
        print(
            f"{name}: {len(found)} gaps, median {1e3 * statistics.median(found):.1f} ms, p99 "
            f"{1e3 * p99:.1f} ms ({p99 / chunk:.2f} chunks), largest {1e3 * max(found):.1f} ms"
        )


async def _run(
    server: RunningServer, arguments: argparse.Namespace, with_prompts: bool
) -> tuple[list[float], int]:
    """Return the gaps between the events of the streams, and how many prompts came."""
    draw = random.Random(0)
    gaps: list[float] = []
    end = time.perf_counter() + arguments.seconds

    def prompt(length: int) -> list[int]:
        return [draw.randrange(arguments.vocabulary) for _ in range(length)]

    async with httpx.AsyncClient(timeout=SECONDS) as client:

        async def stream() -> None:
            while time.perf_counter() < end:
                last = None
                async for moment, _ in server.events(client, prompt(16), arguments.tokens):
                    if last is not None:
                        gaps.append(moment - last)
                    last = moment

        async def ask() -> int:
            count = 0
            while with_prompts and time.perf_counter() < end:
                async for _ in server.events(client, prompt(arguments.prompt), 1):
                    pass
                count += 1
            return count

        *_, prompts = await asyncio.gather(*(stream() for _ in range(arguments.streams)), ask())
    return gaps, prompts


def _numbers(url: str) -> tuple[float, float]:
    """Return the seconds spent on prompts, and the tokens that these had."""
    text = httpx.get(url + "/metrics").text
    found = [pattern.search(text) for pattern in (SPENT, TOKENS)]
    seconds, tokens = (0.0 if match is None else float(match[1]) for match in found)
    return seconds, tokens


if __name__ == "__main__":
    main()
