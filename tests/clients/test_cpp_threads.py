"""The C++ client between threads and over time: one caller a cache, and weights that change under
an open session.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import Package, export
from support.cpp_client import Client, run

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

PROMPT = [1428, 304, 258, 269, 352, 351, 968, 11, 282, 330]  # It was a bright morning, and she
IDS = [str(token) for token in PROMPT]
IN_USE = (
    "KV cache: found another call that is using it, expected one call at a time; each sequence has "
    "a cache of its own"
)


@pytest.mark.parametrize("attempt", range(3))
def test_a_cache_in_use_refuses_others_at_once(
    client: Client, demo_package: Package, attempt: int
) -> None:
    threads = 4
    result = run(
        client.probe, "share", demo_package.folder, client.library, "20", str(threads), *IDS
    )
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[: threads + 1] == [IN_USE] * (threads + 1)  # the threads, and the callback
    expected = client.generate(demo_package.folder, PROMPT, "--max-new-tokens", "20")["tokens"]
    assert [int(token) for token in lines[threads + 1].split()] == expected
    assert lines[threads + 2] == "accepted"  # it is free again
    word, ran, refused = lines[threads + 3].split()
    assert word == "consistent"
    assert int(ran) > 0
    assert int(ran) + int(refused) == threads * 100
    assert (
        lines[threads + 4] == "KV cache: found one of another session, expected one of this session"
    )
    assert len(lines) == threads + 5


@pytest.mark.parametrize("how", ["cut", "touched", "replaced"])
@pytest.mark.parametrize("weights", ["copy", "reference"])
def test_weights_that_changed_are_refused_at_the_next_text(
    client: Client, demo_checkpoint: Path, tmp_path: Path, weights: Any, how: str
) -> None:
    """A file that another replaced under its name is still the session's own: that text goes on."""
    checkpoint = Path(shutil.copytree(demo_checkpoint, tmp_path / "checkpoint"))
    package = export(checkpoint, tmp_path / "package", weights=weights).folder
    file = (checkpoint if weights == "reference" else package) / "model.safetensors"
    result = run(client.probe, "changed", package, client.library, file, how, *IDS)
    assert result.code == 0, result.err
    if how == "replaced":
        assert result.out == "accepted\naccepted\n"
        return
    generation, forward = result.out.splitlines()
    assert generation == forward
    assert generation.startswith(
        f"{file}: found a file that changed since the package was opened, expected"
    )
    assert "--weights copy" in generation
