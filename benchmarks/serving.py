"""Time `gptoss-onnx serve` and llama.cpp's llama-server on layers of gpt-oss-20b with random
weights: tokens a second and the time to the first token, with 1, 4 and 8 clients at a time.

    bash benchmarks/peers.sh
    bash tests/clients/published.sh
    python benchmarks/whole_model.py --folder build/whole --layers 4 --prepare
    python benchmarks/serving.py --folder build/whole --layers 4 --json serving-4.json

All servers are up at once, and are asked in turn, so that what disturbs the machine disturbs all.
Every client sends one request after the other, each with a prompt of its own of random token ids,
and reads the stream. Tokens a second are those of all clients together, from the first request to
the last token, prompts included. Medians over rounds; ratios compare what ran in one round.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
from results import ratio, write_document
from serving_contenders import BUILD, PEER, TOOL, RunningServer, contenders_in

from gptoss_onnx.bench.machine import measure

VOCABULARY = 199_998  # of gpt-oss: ids without a meaning of their own
PAUSE = 0.3  # seconds after each measurement, in which idle threads go to sleep
PUBLISHED = BUILD / "published" / "tokenizer"
SECONDS = 600  # that one request may take


@dataclass
class Figures:
    """Of one server and one number of clients, round by round."""

    tokens_a_second: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)  # median of the round, seconds
    largest_gap: list[float] = field(default_factory=list)  # between two events of a stream


def main() -> None:
    """Prepare, measure, print a table, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where whole_model.py prepares")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of servers")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    package = prepare(arguments.folder, arguments.layers)
    gguf = arguments.folder / f"model-{arguments.layers}.gguf"
    slots, capacity = max(arguments.clients), 2 * (arguments.prompt + arguments.tokens)
    contenders = contenders_in(package, gguf, slots, capacity, arguments.threads)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [
            stack.enter_context(RunningServer(contender, logs / f"{number}.log"))
            for number, contender in enumerate(contenders)
            if arguments.only is None or contender.name in arguments.only
        ]
        bench = Bench(arguments.prompt, arguments.tokens, arguments.requests)
        for server in servers:
            bench.round(server, 1)  # reads the weights
        figures = {
            (server.contender.name, clients): Figures()
            for clients in arguments.clients
            for server in servers
        }
        for _ in range(arguments.rounds):
            for clients in arguments.clients:
                for server in servers:
                    bench.add(server, clients, figures[server.contender.name, clients])
        memory = {server.contender.name: server.memory() for server in servers}
    machine = measure(arguments.threads)
    show(figures, memory)
    print(json.dumps(asdict(machine)))
    if arguments.json:
        results = [
            {"server": name, "clients": clients, **asdict(found)}
            for (name, clients), found in figures.items()
        ]
        shape = vars(arguments) | {"folder": None, "json": None}
        write_document(arguments.json, machine, shape=shape, memory=memory, results=results)


def prepare(folder: Path, layers: int) -> Path:
    """Export the checkpoint of random weights with the published tokenizer, once."""
    package = folder / f"package-{layers}-text"
    if package.exists():
        return package
    checkpoint = folder / f"checkpoint-{layers}-text"
    if not checkpoint.exists():
        made = Path(tempfile.mkdtemp(dir=folder))
        for file in (folder / f"checkpoint-{layers}").iterdir():
            (made / file.name).hardlink_to(file)
        for file in PUBLISHED.iterdir():
            shutil.copy(file, made)
        made.rename(checkpoint)
    options = ("--output", package, "--kv-dtype", "bfloat16")
    subprocess.run([TOOL, "export", checkpoint, *options], check=True)
    return package


class Bench:
    """How a server is asked."""

    def __init__(self, prompt: int, tokens: int, requests: int) -> None:
        self._prompt, self._tokens, self._requests = prompt, tokens, requests
        self._random = random.Random(0)

    def add(self, server: RunningServer, clients: int, figures: Figures) -> None:
        """Measure one round and note it."""
        rate, firsts, gaps = self.round(server, clients)
        figures.tokens_a_second.append(rate)
        figures.first_token.append(statistics.median(firsts))
        figures.largest_gap.append(max(gaps))
        time.sleep(PAUSE)

    def round(self, server: RunningServer, clients: int) -> tuple[float, list[float], list[float]]:
        """Let the clients ask at the same time; return tokens a second, and the seconds to the
        first event and between events.
        """
        return asyncio.run(self._round(server, clients))

    async def _round(
        self, server: RunningServer, clients: int
    ) -> tuple[float, list[float], list[float]]:
        firsts: list[float] = []
        gaps: list[float] = [0.0]
        tokens = 0
        async with httpx.AsyncClient(timeout=SECONDS) as client:

            async def ask() -> None:
                nonlocal tokens
                for _ in range(self._requests):
                    prompt = [self._random.randrange(VOCABULARY) for _ in range(self._prompt)]
                    last, first = time.perf_counter(), True
                    async for moment, event in server.events(client, prompt, self._tokens):
                        (firsts if first else gaps).append(moment - last)
                        last, first = moment, False
                        tokens += server.contender.count(event)

            begin = time.perf_counter()
            await asyncio.gather(*(ask() for _ in range(clients)))
            seconds = time.perf_counter() - begin
        expected = clients * self._requests * self._tokens
        if tokens != expected:
            raise SystemExit(
                f"{server.contender.name}: gave {tokens} tokens, expected {expected}: not compared"
            )
        return tokens / seconds, firsts, gaps


def show(figures: dict[tuple[str, int], Figures], memory: dict[str, int]) -> None:
    """Print the table."""
    print(
        f"{'server':16} {'clients':>7} {'tokens/s':>9} {'of peer':>8} {'first token':>12} "
        f"{'largest gap':>12} {'anonymous':>10}"
    )
    for (name, clients), found in figures.items():
        peer = figures.get((PEER, clients))
        share = f"{ratio(found.tokens_a_second, peer.tokens_a_second):8.2f}" if peer else f"{'':8}"
        print(
            f"{name:16} {clients:7} {statistics.median(found.tokens_a_second):9.1f} {share} "
            f"{1e3 * statistics.median(found.first_token):9.0f} ms "
            f"{1e3 * statistics.median(found.largest_gap):9.0f} ms {memory[name] / 1e6:7.0f} MB"
        )


if __name__ == "__main__":
    main()
