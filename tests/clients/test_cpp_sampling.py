"""The C++ client's sampling: its distribution, its extremes, and what it remembers of a
sequence.
"""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session
from support.cpp_client import Client, run
from support.tolerances import SAMPLER_PROBABILITIES, SAMPLING_SIGMAS

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

CASES = json.loads(Path(__file__).with_name("sampler_cases.json").read_text())["cases"]
PROMPT = [1428, 304, 258, 269, 352, 351, 968, 11, 282, 330]  # It was a bright morning, and she


@dataclass(frozen=True)
class Draw:
    """Settings of the sampler, as the probe takes them."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seen: tuple[int, ...] = ()

    def words(self, seed: int, count: int) -> list[str]:
        """The probe's arguments."""
        settings = (self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)
        seen = ",".join(map(str, self.seen)) or "-"
        return ["draw", str(seed), *map(repr, settings), seen, str(count)]


def draws(client: Client, logits: NDArray[np.float32], draw: Draw, count: int = 5) -> list[int]:
    """Draw tokens, each anew; `seen` grows by what was drawn."""
    words = [str(client.probe), *draw.words(4, count)]
    done = subprocess.run(words, input=logits.tobytes(), capture_output=True, check=True)
    return [int(token) for token in done.stdout.split()]


def distribution(logits: NDArray[np.float32], draw: Draw) -> NDArray[np.float64]:
    """The probabilities of the tokens (V), by the definition that all clients share."""
    scores = (logits.astype(np.float64) - float(logits.max())) / draw.temperature
    order = np.argsort(-scores, kind="stable")  # the most probable first, the lower among equals
    kept = scores >= (scores[order[draw.top_k - 1]] if 0 < draw.top_k < scores.size else -np.inf)
    weights = np.where(kept, np.exp(scores), 0)
    if draw.top_p < 1:
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= draw.top_p * weights.sum()]] = 0
    weights[scores < (math.log(draw.min_p) if draw.min_p > 0 else -np.inf)] = 0
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


@pytest.mark.parametrize(
    "draw",
    [
        Draw(temperature=1.0),
        Draw(temperature=0.7, top_k=5),
        Draw(temperature=1.5, top_p=0.8),
        Draw(temperature=1.0, min_p=0.2),
        Draw(temperature=1.3, top_k=12, top_p=0.9, min_p=0.05),
        Draw(temperature=1e-6),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(client: Client, draw: Draw) -> None:
    logits = (2 * np.random.default_rng(8).standard_normal(64)).astype(np.float32)
    logits[20] = np.sort(logits)[-5]  # ties with the fifth: both stay
    logits[30] = -np.inf  # a token that the graph rules out
    expected = distribution(logits, draw)
    count = 20_000
    found = np.bincount(draws(client, logits, draw, count), minlength=logits.size) / count
    assert (found[expected == 0] == 0).all()
    spread = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(found - expected) <= SAMPLING_SIGMAS * spread + 1 / count).all()
    assert (found[expected * count > SAMPLING_SIGMAS**2] > 0).all()


def test_a_large_vocabulary_keeps_the_smallest_nucleus(client: Client) -> None:
    logits = np.random.default_rng(9).standard_normal(200_000).astype(np.float32)
    draw = Draw(temperature=0.2, top_p=0.9)
    kept = set(np.flatnonzero(distribution(logits, draw)))
    assert 2 < len(kept) < 2000
    assert set(draws(client, logits, draw, 300)) <= kept


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_table_of_all_clients(client: Client, case: dict[str, Any]) -> None:
    with np.errstate(over="ignore"):
        logits = np.array([float(value) for value in case["logits"]], np.float32)
    draw = Draw(**case["settings"], seen=tuple(case["seen"]))
    expected = case["expected"]
    words = draw.words(4, 1)
    done = subprocess.run(
        [client.probe, *words], input=logits.tobytes(), capture_output=True, check=False
    )
    if "error" in expected:
        assert done.returncode == 2
        assert b"logits: found a largest one of " in done.stderr
        return
    token = int(done.stdout)
    if "token" in expected:
        assert token == expected["token"]
        return
    words[0] = "candidates"
    out = subprocess.run(
        [client.probe, *words], input=logits.tobytes(), capture_output=True, check=True
    ).stdout
    shares = np.zeros(logits.size)
    for line in out.splitlines():
        candidate, weight = line.split()
        shares[int(candidate)] = float(weight)
    assert shares.max() == 1
    np.testing.assert_allclose(
        shares / shares.sum(), expected["probabilities"], atol=SAMPLER_PROBABILITIES, rtol=0
    )
    assert expected["probabilities"][token] > 0


def test_the_least_top_p_keeps_one(client: Client) -> None:
    logits = np.array([0, 1, 2, 0], np.float32)
    assert draws(client, logits, Draw(temperature=1.0, top_p=2.3e-308), 20) == [2] * 20


def test_a_seed_repeats_itself_and_others_differ(client: Client, demo_package: Package) -> None:
    words = (
        "--max-new-tokens",
        "30",
        "--temperature",
        "1.2",
        "--top-p",
        "0.95",
        "--top-k",
        "100",
        "--min-p",
        "0.01",
    )
    runs = [
        client.generate(demo_package.folder, PROMPT, *words, "--seed", seed)["tokens"]
        for seed in "5567"
    ]
    assert runs[0] == runs[1]
    assert len({tuple(tokens) for tokens in runs}) == 3
    unseeded = [client.generate(demo_package.folder, PROMPT, *words)["tokens"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_the_repetition_penalty_is_the_python_sessions(
    client: Client, demo_package: Package
) -> None:
    words = ("--max-new-tokens", "40", "--repetition-penalty", "1.3")
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(
            session.generate(PROMPT, Sampling(repetition_penalty=1.3), max_new_tokens=40)
        )
    assert client.generate(demo_package.folder, PROMPT, *words)["tokens"] == expected


@pytest.mark.parametrize("penalty", [1.3, 3.0, 0.8])
def test_the_repetition_penalty_is_of_the_whole_sequence(
    client: Client, demo_package: Package, penalty: float
) -> None:
    ids = map(str, PROMPT)
    result = run(
        client.probe, "continue", demo_package.folder, client.library, "40", str(penalty), *ids
    )
    assert result.code == 0, result.err
    at_once, in_parts = ([int(token) for token in line.split()] for line in result.out.splitlines())
    assert len(at_once) == 40
    assert in_parts == at_once


def test_stop_tokens_end_a_text_beside_the_packages_own(
    client: Client, demo_package: Package
) -> None:
    tokens = client.generate(demo_package.folder, PROMPT, "--max-new-tokens", "12")["tokens"]
    stops = ("--stop-token", str(tokens[6]), "--stop-token", "0")
    found = client.generate(demo_package.folder, PROMPT, "--max-new-tokens", "12", *stops)
    assert (found["tokens"], found["finish_reason"]) == (
        tokens[: tokens.index(tokens[6]) + 1],
        "stop",
    )
