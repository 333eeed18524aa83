"""Packages of target ort, run by ONNX Runtime's own kernels, against transformers in float32."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.validation import validate
from support.hugging_face import hugging_face_logits, load_hugging_face, random_tokens
from support.tolerances import PACKAGE_LOGITS

RANDOM: dict[str, tuple[str, str, dict[str, object]]] = {
    "mxfp4": ("hf-mxfp4", "BF16", {}),
    "dense bf16": ("hf-bf16", "BF16", {"num_attention_heads": 6}),
    "dense fp16": ("hf-bf16", "F16", {"sliding_window": 1, "tie_word_embeddings": True}),
    "dense fp32": ("hf-bf16", "F32", {"num_local_experts": 3, "attention_bias": False}),
}


@pytest.fixture(scope="module", params=["demo", *RANDOM])
def pair(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
):
    """A session, transformers' model of the same checkpoint, its configuration and folder."""
    folder = tmp_path_factory.mktemp("ort")
    checkpoint, layout = demo_checkpoint, "hf-mxfp4"
    if request.param != "demo":
        layout, dtype, changes = RANDOM[request.param]
        checkpoint = folder / "checkpoint"
        make_checkpoint(checkpoint, tiny_document(**changes), layout=layout, dtype=dtype, seed=8)
    with open_checkpoint(checkpoint) as opened:
        config = opened.config
    package = export(checkpoint, folder / "package", target="ort")
    with Session.open(package.folder, threads=2) as session:
        yield session, load_hugging_face(checkpoint, layout == "hf-mxfp4"), config, checkpoint


def assert_equal(
    found: np.ndarray, theirs, token_ids: list[int], positions: slice = slice(None)
) -> None:
    expected = hugging_face_logits(theirs, token_ids)[positions].numpy()
    np.testing.assert_allclose(found, expected, atol=PACKAGE_LOGITS, rtol=0)


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_beyond_the_window_in_chunks(pair, chunk: int) -> None:
    session, theirs, config, _ = pair
    tokens = random_tokens(config, 4 * config.window + 70, seed=6)
    assert_equal(session.score(tokens, chunk=chunk), theirs, tokens)


def test_decode_step_by_step(pair) -> None:
    session, theirs, config, _ = pair
    tokens = random_tokens(config, 4 * config.window + 3, seed=7)
    with session.new_cache(1, len(tokens)) as cache:
        found = [session.forward([[token]], cache)[0, 0] for token in tokens]
    assert_equal(np.stack(found), theirs, tokens)


def test_batch_of_three_rows_of_one_length(pair) -> None:
    session, theirs, config, _ = pair
    prompt = config.window + 9
    rows = [random_tokens(config, prompt + 20, seed=seed) for seed in (1, 2, 3)]
    every = np.tile(np.arange(prompt), (3, 1))
    with session.new_cache(3, prompt + 20) as cache:
        logits = session.forward([row[:prompt] for row in rows], cache, logit_positions=every)
        for row, found in zip(rows, logits, strict=True):
            assert_equal(found, theirs, row[:prompt])
        for step in range(20):
            logits = session.forward([[row[prompt + step]] for row in rows], cache)
    for row, found in zip(rows, logits, strict=True):
        assert_equal(found, theirs, row, slice(-1, None))


def test_past_the_original_context(pair) -> None:
    """Where YaRN's ramp and attention factor show."""
    session, theirs, config, _ = pair
    length = config.rope.original_longest + 40
    tokens = random_tokens(config, length, seed=9)
    assert_equal(session.score(tokens, chunk=100)[-40:], theirs, tokens, slice(-40, None))


def test_greedy_continuation_is_the_references(pair) -> None:
    session, _, config, folder = pair
    prompt = random_tokens(config, 12, seed=10)
    with open_checkpoint(folder) as opened:
        reference = Decoder.from_checkpoint(opened)
        tokens = list(session.generate(prompt, Sampling(stop_tokens=()), max_new_tokens=24))
        logits = reference.score([*prompt, *tokens])[len(prompt) - 1 : -1]
    best = logits.max(-1).values - logits[torch.arange(len(tokens)), torch.tensor(tokens)]
    assert best.max() <= PACKAGE_LOGITS  # a tie at most


def test_ties_of_the_router_go_to_the_lower_expert(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """QMoE itself gives them to the higher: with a router of zeros every expert ties."""
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model.safetensors"
    tensors = {name: t * 0 if ".router." in name else t for name, t in load_file(path).items()}
    save_file(tensors, path)
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    with (
        open_checkpoint(tmp_path / "checkpoint") as opened,
        Session.open(package.folder) as session,
    ):
        tokens = random_tokens(opened.config, 30, seed=4)
        expected = Decoder.from_checkpoint(opened).score(tokens).numpy()
        np.testing.assert_allclose(session.score(tokens), expected, atol=PACKAGE_LOGITS, rtol=0)


def test_a_float16_cache_is_lossy_and_passes_its_own_limits(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", target="ort", kv_dtype="float16")
    assert package.manifest.lossy == ("kv cache in float16",)
    report = validate(package.folder, tiny_checkpoint)
    assert report.passed, report.table()
    prefill = report.cell("prefill")
    assert prefill.difference.max_abs > 1e-5  # measured, and really narrower


def test_int8_activations_pass_their_own_limits(ort_int8_package, demo_checkpoint: Path) -> None:
    report = validate(ort_int8_package.folder, demo_checkpoint, activations="int8")
    assert report.passed, report.table()
    prefill = report.cell("prefill")
    assert prefill.difference.max_abs > 1e-3  # measured, and really narrower
