"""An engine on a staged session: rows that move and prefixes that are kept, over processes."""

from pathlib import Path

import numpy as np

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import Session, StagedSession
from gptoss_onnx.runtime.engine import Engine
from support.engine_sinks import submitted


def answers(session: Session) -> list[list[int]]:
    """Return what three prompts in two slots are answered, and a second turn."""
    prompts = [
        np.random.default_rng(seed).integers(0, 2048, 20 * seed + 9).tolist() for seed in range(3)
    ]
    sizes = {"slots": 2, "capacity": 160, "chunk": 32, "max_queue": 8, "prefix_bytes": 1 << 24}
    with Engine(session, **sizes) as engine:
        sinks = [submitted(engine, prompt, max_new_tokens=12)[0] for prompt in prompts]
        found = [sink.wait().tokens for sink in sinks]
        again = [*prompts[2], *found[2], 5, 6, 7]
        sink, ticket = submitted(engine, again, max_new_tokens=4)
        found.append(sink.wait().tokens)
        assert ticket.cached_tokens > len(prompts[2])
        assert all(sink.ends == ["length"] for sink in sinks)
    return found


def test_answers_are_those_of_an_engine_on_the_whole_model(
    demo_package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    stages = [
        export(demo_checkpoint, tmp_path / f"{first}", layers=(first, first + 3)).folder
        for first in (0, 3)
    ]
    with (
        Session.open(demo_package.folder, threads=1) as whole,
        StagedSession.start(stages, threads=1) as staged,
    ):
        assert answers(whole) == answers(staged)
