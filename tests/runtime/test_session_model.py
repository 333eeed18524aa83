"""A real graph in a session: every way of feeding a sequence gives the logits transformers gives,
portable bodies.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import GptOssForCausalLM

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import config_of, make_checkpoint, tiny_document
from gptoss_onnx.runtime import Sampling, Session
from support.hugging_face import hugging_face_logits, load_hugging_face, random_tokens
from support.tolerances import PACKAGE_LOGITS

DOCUMENT = tiny_document()
CONFIG = config_of(DOCUMENT)
LENGTH = 3 * CONFIG.window + 5
TOKENS = random_tokens(CONFIG, LENGTH, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    make_checkpoint(folder, DOCUMENT)
    return folder


@pytest.fixture(scope="module")
def session(checkpoint: Path) -> Iterator[Session]:
    package = export(checkpoint, checkpoint.with_name("package"))
    with Session.open(package.folder, kernels="portable", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> GptOssForCausalLM:
    return load_hugging_face(checkpoint, mxfp4=True)


@pytest.fixture(scope="module")
def expected(theirs: GptOssForCausalLM) -> NDArray[np.float32]:
    return hugging_face_logits(theirs, TOKENS).numpy()


def _assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=PACKAGE_LOGITS)


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_score(session: Session, expected: NDArray[np.float32], chunk: int | None) -> None:
    _assert_close(session.score(TOKENS, chunk), expected)


def test_ragged_prefill_then_decode_then_rewind(
    session: Session, expected: NDArray[np.float32]
) -> None:
    """Rows at different places of one sequence, so one pass of the outside implementation judges
    them all.
    """
    lengths = np.array([CONFIG.window + 3, 1, 2 * CONFIG.window])
    cache = session.new_cache(3, LENGTH, reserve=2, chunk=5)
    padded = np.zeros((3, lengths.max()), np.int64)
    for row, length in enumerate(lengths):
        padded[row, :length] = TOKENS[:length]
    logits = session.forward(padded, cache, lengths)
    _assert_close(logits[:, 0], expected[lengths - 1])
    for step in range(4):
        at = cache.lengths
        logits = session.forward(np.array(TOKENS)[at][:, None], cache)
        _assert_close(logits[:, 0], expected[at])
        if step == 1:
            cache.rewind(cache.rewind_limit)
            assert (cache.lengths < at).all()


def test_greedy_generation(session: Session, theirs: GptOssForCausalLM) -> None:
    prompts = [TOKENS[:3], TOKENS[: CONFIG.window + 1]]
    continuation = session.generate(
        prompts, Sampling(stop_tokens=()), max_new_tokens=CONFIG.window + 4
    )
    list(continuation)
    for prompt, tokens in zip(prompts, continuation.tokens, strict=True):
        logits = hugging_face_logits(theirs, prompt + tokens)[len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        # Each token is the most probable one, or within the tolerance of a tie.
        assert (logits.max(dim=1).values - chosen).max() <= 2 * PACKAGE_LOGITS
