"""Compare how fast clients in other languages decode with the Python session: same package, prompt
and threads.

python benchmarks/clients.py PACKAGE --client "path/to/gptoss-generate" [--client "node
clients/node/…"] --json FILE

Every command takes the flags of `gptoss-onnx generate` used here and prints the JSON of its
`--json`. A round runs each of them once, in turn and each in its own process, Python first; the
ratio of a round is between runs that are seconds apart, and the medians of these ratios are what
counts on a machine that has other work. All decode greedily, so every client must say the same
tokens, and routes them to the same experts.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from results import ratio, write_document

from gptoss_onnx.bench.machine import measure
from gptoss_onnx.runtime import open_package

PYTHON = "python"


def generate(
    command: list[str], package: Path, prompt: list[int], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run one command once and return its JSON document."""
    flags = [
        "--max-new-tokens",
        str(arguments.decode),
        "--threads",
        str(arguments.threads),
        "--json",
    ]
    flags += ["--kernels", arguments.kernels, "--activations", arguments.activations]
    ids = ",".join(map(str, prompt))
    done = subprocess.run(
        [*command, str(package), "--prompt-tokens", ids, *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    document: dict[str, Any] = json.loads(done.stdout)
    if document["kernels"] != arguments.kernels:
        sys.exit(
            f"{shlex.join(command)}: found {document['kernels']} kernels, expected "
            f"{arguments.kernels}"
        )
    return document


def figures(document: dict[str, Any]) -> dict[str, float]:
    """Return milliseconds: of a decoded token, of a prompt token, and of opening the package."""
    timings = document["timings"]
    return {
        # prefill gives the first
        "decode_ms": 1000 * timings["decode_seconds"] / (timings["new_tokens"] - 1),
        "prefill_ms": 1000 * timings["prefill_seconds"] / timings["prompt_tokens"],
        "load_ms": 1000 * timings["load_seconds"],
    }


def main() -> None:
    """Run the rounds, print a table, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument(
        "--client", action="append", required=True, help="command line of a client, flags included"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=64, help="new tokens")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kernels", choices=["native", "portable", "contrib"], default="native")
    parser.add_argument("--activations", default="exact")
    parser.add_argument("--json", type=Path, help="also write the document here")
    arguments = parser.parse_args()
    python = shutil.which("gptoss-onnx", path=str(Path(sys.executable).parent)) or "gptoss-onnx"
    commands = {PYTHON: [python, "generate"]}
    for line in arguments.client:
        command = shlex.split(line)
        name = Path(command[0]).name
        if name in commands:
            parser.error(f"--client: found {name} twice, expected programs of different names")
        commands[name] = command
    manifest = open_package(arguments.package).manifest
    vocabulary, layers = manifest.vocab_size, len(manifest.cache)
    prompt = np.random.default_rng(0).integers(0, vocabulary, arguments.prefill).tolist()
    machine = measure(arguments.threads)
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(arguments.rounds + 1):
        answers = {
            name: generate(command, arguments.package, prompt, arguments)
            for name, command in commands.items()
        }
        for name, answer in answers.items():
            if answer["tokens"] != answers[PYTHON]["tokens"]:
                sys.exit(f"{name}: found other tokens than the Python session's; run its --verify")
        found = {name: figures(answer) for name, answer in answers.items()}
        if number > 0:  # the first brings the weights into the page cache
            rounds.append(found)
            print(f"round {number}: {summary(found)}", file=sys.stderr)
    results = [judged(name, rounds) for name in commands]
    for result in results:
        print("  ".join(f"{key} {value}" for key, value in result.items()))
    if arguments.json:
        about = {
            key: getattr(arguments, key)
            for key in ("prefill", "decode", "kernels", "activations", "rounds")
        }
        write_document(arguments.json, machine, layers=layers, **about, results=results)


def summary(found: dict[str, dict[str, float]]) -> str:
    """Return one line for people."""
    return ", ".join(f"{name} {one['decode_ms']:.2f} ms a token" for name, one in found.items())


def judged(name: str, rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return a client's medians, and the medians of its rounds' ratios to Python (above 1:
    slower).
    """
    result: dict[str, Any] = {"client": name}
    for key in rounds[0][name]:
        own, python = ([found[one][key] for found in rounds] for one in (name, PYTHON))
        result[key] = round(statistics.median(own), 3)
        result[f"{key.removesuffix('_ms')}_ratio"] = round(ratio(own, python), 3)
    return result


if __name__ == "__main__":
    main()
