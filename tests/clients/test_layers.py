"""Layers that differ in window, kept first tokens, kv heads and head dim, in every client: the
logits of `fake_package` spell out what each buffer holds, and golden vectors say what they should.

The prompt takes three calls of the graph, so that the rings go round: the first query of the second
call sees positions that a ring with a slot too few would have overwritten.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.browser_client import BrowserClient
from support.cpp_client import Client
from support.fake_package import LAYERS, VOCAB, expected_logits, write_fake_package
from support.node_client import build_node, succeed

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

PROMPT = 1100
POSITIONS = (0, 2, 8, 9, 511, 512, 530, 1023, 1024, PROMPT - 1)
GREEDY = 24
STACKS: dict[str, dict[str, Any]] = {
    "shapes": {"windows": (0, 3, 8), "shapes": ((2, 3), (1, 8), (4, 1))},
    "kept": {"windows": (7, 0, 9), "sinks": (3, 0, 8), "shapes": ((1, 2), (3, 1), (1, 1))},
}


@pytest.fixture(params=STACKS)
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A package with golden vectors that were computed from the plain history."""
    stack = STACKS[request.param]
    folder = write_fake_package(tmp_path / "package", sign=-1.0, **stack)
    tokens = [int(token) for token in np.random.default_rng(7).integers(0, VOCAB, PROMPT)]

    def logits_at(position: int) -> NDArray[np.float32]:
        sinks = stack.get("sinks", (0,) * LAYERS)
        return -expected_logits(seen, stack["windows"], position, sinks)

    seen = list(tokens)
    for _ in range(GREEDY):
        seen.append(int(np.argmax(logits_at(len(seen) - 1))))
    logits = [logits_at(position) for position in POSITIONS]
    case = {
        "name": request.param,
        "token_ids": tokens,
        "greedy": seen[PROMPT:],
        "positions": POSITIONS,
        "top_indices": [list(range(VOCAB))] * len(POSITIONS),
        "top_logits": [each.tolist() for each in logits],
        "sampled_logits": [each[:2].tolist() for each in logits],
        "logsumexp": [float(np.logaddexp.reduce(each.astype(np.float64))) for each in logits],
    }
    golden = {
        "format": "gptoss-onnx-golden",
        "format_version": 1,
        "sampled_indices": [0, 1],
        "cases": [case],
    }
    (folder / "golden").mkdir()
    (folder / "golden" / "golden.json").write_text(json.dumps(golden))
    return folder


def check(verdict: dict[str, Any]) -> None:
    """Assert that a verdict passed; integers in float32 are exact."""
    assert verdict["passed"] is True, verdict
    (case,) = verdict["cases"]
    assert (case["greedy_equal"], case["max_abs"]) == (GREEDY, 0)


@pytest.mark.cpp
@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_cpp(client: Client, package: Path, kernels: str) -> None:
    check(client.run(package, "--verify", "--json", "--kernels", kernels).json)


@pytest.mark.node
def test_node(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = ("node", str(build_node(tmp_path_factory)), "verify", str(package))
    check(json.loads(succeed(*command, "--kernels", "portable", "--threads", "1")))


@pytest.mark.browser
def test_browser(browser: BrowserClient, package: Path) -> None:
    result = browser.run("verify", package)
    assert result.returncode == 0, result.stderr
    check(json.loads(result.stdout))
