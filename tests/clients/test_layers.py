"""Layers that differ in window, kept first tokens, kv heads and head dim, in every client: the
logits of `fake_package` spell out what each buffer holds, and golden vectors say what they should.

The prompt takes three calls of the graph, so that the rings go round: the first query of the second
call sees positions that a ring with a slot too few would have overwritten.
"""

import json
from collections.abc import Sequence
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
TOKENS = [int(token) for token in np.random.default_rng(7).integers(0, VOCAB, PROMPT)]
STACKS: dict[str, dict[str, Any]] = {
    "shapes": {"windows": (0, 3, 8), "shapes": ((2, 3), (1, 8), (4, 1))},
    "kept": {"windows": (7, 0, 9), "sinks": (3, 0, 8), "shapes": ((1, 2), (3, 1), (1, 1))},
}


@pytest.fixture(params=STACKS)
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A package with golden vectors that were computed from the plain history."""
    stack = STACKS[request.param]
    folder = write_fake_package(tmp_path / "package", sign=-1.0, **stack)
    golden = {
        "format": "gptoss-onnx-golden",
        "format_version": 1,
        "sampled_indices": [0, 1],
        "cases": [
            _case("long", stack, TOKENS, POSITIONS, 24),
            # A capacity of as many tokens as a layer keeps.
            _case("kept", stack, TOKENS[:5], (0, 4), 3),
        ],
    }
    (folder / "golden").mkdir()
    (folder / "golden" / "golden.json").write_text(json.dumps(golden))
    return folder


def _logits(stack: dict[str, Any], tokens: Sequence[int], position: int) -> NDArray[np.float32]:
    sinks = stack.get("sinks", (0,) * LAYERS)
    return -expected_logits(tokens, stack["windows"], position, sinks)


def _case(
    name: str,
    stack: dict[str, Any],
    prompt: Sequence[int],
    positions: Sequence[int],
    count: int,
) -> dict[str, Any]:
    """Return a case whose greedy continuation has `count` tokens."""
    seen = list(prompt)
    for _ in range(count):
        seen.append(int(np.argmax(_logits(stack, seen, len(seen) - 1))))
    logits = [_logits(stack, seen, position) for position in positions]
    return {
        "name": name,
        "token_ids": prompt,
        "greedy": seen[len(prompt) :],
        "positions": positions,
        "top_indices": [list(range(VOCAB))] * len(positions),
        "top_logits": [each.tolist() for each in logits],
        "sampled_logits": [each[:2].tolist() for each in logits],
        "logsumexp": [float(np.logaddexp.reduce(each.astype(np.float64))) for each in logits],
    }


def _check(verdict: dict[str, Any]) -> None:
    """Assert that a verdict passed; integers in float32 are exact."""
    assert verdict["passed"] is True, verdict
    assert [case["max_abs"] for case in verdict["cases"]] == [0, 0]


@pytest.mark.cpp
@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_cpp(client: Client, package: Path, kernels: str) -> None:
    _check(client.run(package, "--verify", "--json", "--kernels", kernels).json)


@pytest.mark.node
def test_node(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = ("node", str(build_node(tmp_path_factory)), "verify", str(package))
    _check(json.loads(succeed(*command, "--kernels", "portable", "--threads", "1")))


TAKEN_BACK = """
import { Session } from "gptoss-node";
const [folder, ...words] = process.argv.slice(1);
const tokens = words.map(Number);
const session = await Session.open(folder, { kernels: "portable", threads: 1 });
const cache = session.newCache(200, 4);
const found = { refused: [], logits: {} };
for (let length = 0; length < tokens.length; length += 1) {
  cache.length = 0;
  await session.forward(tokens, cache);
  try {
    cache.length = length;
  } catch (error) {
    found.refused.push(error.message);
    continue;
  }
  await session.forward([5, 6, 7].slice(0, tokens.length - length), cache);
  cache.length = length;
  found.logits[length] = [...(await session.forward(tokens.slice(length), cache))];
}
console.log(JSON.stringify(found));
"""


@pytest.mark.node
def test_node_takes_tokens_back(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """To what the window layers keep or still hold, and the logits are the same again."""
    stack: dict[str, Any] = {"windows": (7, 0, 9), "sinks": (3, 0, 5)}
    folder = write_fake_package(tmp_path / "package", sign=-1.0, **stack)
    build_node(tmp_path_factory)
    tokens = TOKENS[:40]
    command = ("node", "--input-type=module", "--eval", TAKEN_BACK, "--", str(folder))
    found = json.loads(succeed(*command, *map(str, tokens)))
    # Rings of 10 and 12 slots: 40 tokens went round, and the last 4 came at once.
    allowed = [0, 1, 2, 3, 36, 37, 38, 39]
    assert list(found["logits"]) == list(map(str, allowed))
    line = (
        "cache length: found 4, expected 0 to 3, or at least 36, which the window layers still hold"
    )
    assert found["refused"][0] == line
    expected = _logits(stack, tokens, len(tokens) - 1).tolist()
    assert all(logits == expected for logits in found["logits"].values())


@pytest.mark.browser
def test_browser(browser: BrowserClient, package: Path) -> None:
    result = browser.run("verify", package)
    assert result.returncode == 0, result.stderr
    _check(json.loads(result.stdout))
