"""The exported package, run by ONNX Runtime through bodies and native kernels, against transformers
in float32.

A package with int8 projections is held to transformers with the dequantized weights.

Window layers wrap, calls are chunked, rows are ragged: every way a server may drive the same
tokens.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from transformers import GptOssForCausalLM

from gptoss_onnx.exporter import export
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.reference import DecoderConfig, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from support.hugging_face import (
    give_dense_int8,
    hugging_face_logits,
    load_hugging_face,
    random_tokens,
)
from support.tolerances import PACKAGE_LOGITS, PACKAGE_LOGITS_INT8

RANDOM = {
    "mxfp4": ("hf-mxfp4", "BF16", {}),
    "dense bf16": ("hf-bf16", "BF16", {"num_attention_heads": 6}),
    "dense fp16": ("hf-bf16", "F16", {"sliding_window": 1, "tie_word_embeddings": True}),
    "dense fp32": ("hf-bf16", "F32", {"num_local_experts": 3, "attention_bias": False}),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A package's sessions by kernels, and transformers' model of the same checkpoint."""

    sessions: dict[str, Session]
    theirs: GptOssForCausalLM
    config: DecoderConfig

    def tokens(self, count: int, seed: int) -> list[int]:
        return random_tokens(self.config, count, seed)

    def assert_equal(
        self,
        session: Session,
        found: np.ndarray,
        token_ids: list[int],
        positions: slice = slice(None),
    ) -> None:
        expected = hugging_face_logits(self.theirs, token_ids)[positions].numpy()
        int8 = session.kernels == "native" and session.manifest.has_op("LinearInt8")
        tolerance = PACKAGE_LOGITS_INT8 if int8 else PACKAGE_LOGITS
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@pytest.fixture(
    scope="module", params=["demo", *RANDOM, "demo int8", "mxfp4 int8", "dense fp16 int8"]
)
def pair(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    folder = tmp_path_factory.mktemp("parity")
    checkpoint, layout = demo_checkpoint, "hf-mxfp4"
    source, int8 = request.param.removesuffix(" int8"), request.param.endswith(" int8")
    if source != "demo":
        layout, dtype, changes = RANDOM[source]
        checkpoint = folder / "checkpoint"
        make_checkpoint(checkpoint, tiny_document(**changes), layout=layout, dtype=dtype, seed=8)
    with open_checkpoint(checkpoint) as opened:
        config = opened.config
    package = export(
        checkpoint, folder / "package", weights="copy", dense="int8" if int8 else "checkpoint"
    )
    theirs = load_hugging_face(checkpoint, layout == "hf-mxfp4")
    if int8:
        give_dense_int8(theirs, package.folder / INT8_FILE)
    sessions = {
        kernels: Session.open(package.folder, kernels, threads=2)
        for kernels in ("portable", "native")
    }
    yield Pair(sessions, theirs, config)
    for session in sessions.values():
        session.close()


@pytest.fixture(params=["portable", "native"])
def session(request: pytest.FixtureRequest, pair: Pair) -> Session:
    return pair.sessions[request.param]


@pytest.fixture
def beyond(pair: Pair) -> list[int]:
    """A sequence to four times the window and a little more."""
    return pair.tokens(4 * pair.config.window + 3, seed=6)


def test_prefill(pair: Pair, session: Session, beyond: list[int]) -> None:
    pair.assert_equal(session, session.score(beyond), beyond)


def test_decode_step_by_step(pair: Pair, session: Session, beyond: list[int]) -> None:
    with session.new_cache(1, len(beyond)) as cache:
        found = [session.forward([[token]], cache)[0, 0] for token in beyond]
    pair.assert_equal(session, np.stack(found), beyond)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks(pair: Pair, session: Session, beyond: list[int], chunk: int) -> None:
    pair.assert_equal(session, session.score(beyond, chunk=chunk), beyond)


def test_ragged_batch_of_three(pair: Pair, session: Session) -> None:
    rows = [pair.tokens(count, seed=count) for count in (pair.config.window + 9, 4, 1)]
    longest = max(map(len, rows))
    padded = [row + [0] * (longest - len(row)) for row in rows]
    every = np.tile(np.arange(longest), (3, 1))
    with session.new_cache(3, longest + 20) as cache:
        logits = session.forward(
            padded, cache, new_lengths=[len(row) for row in rows], logit_positions=every
        )
        for index, row in enumerate(rows):
            pair.assert_equal(session, logits[index, : len(row)], row)
        for step in range(20):
            nexts = [pair.tokens(1, seed=100 + 3 * step + index)[0] for index in range(3)]
            logits = session.forward([[token] for token in nexts], cache)
            rows = [[*row, token] for row, token in zip(rows, nexts, strict=True)]
        for index, row in enumerate(rows):
            pair.assert_equal(session, logits[index], row, slice(-1, None))
