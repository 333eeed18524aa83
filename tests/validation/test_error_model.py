"""The error model says what float32 sums are off by, and limits follow it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gptoss_onnx.exporter import Package
from gptoss_onnx.manifest import OpUse
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import tiny_config
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.judging.error_model import ErrorModel, dot, products_of
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import (
    ACTIVATIONS,
    CACHES,
    EXACT,
    LEAST_POSITIONS,
    exact_limits,
)
from gptoss_onnx.validation.judging.metrics import Difference, compare
from gptoss_onnx.validation.judging.outcome import judge
from support.small_faults import FAULTS
from support.tolerances import DOT_SHARE

CONTEXT = 2048


@pytest.mark.parametrize(("count", "lanes"), [(16, 1), (128, 1), (1024, 8), (4096, 8)])
def test_sums_are_off_by_what_is_said(count: int, lanes: int) -> None:
    """Summed one after the other; a kernel's blocks and lanes do better."""
    generator = torch.Generator().manual_seed(count)
    products = torch.randn(2000, count // lanes, lanes, generator=generator)
    found = torch.zeros(2000, lanes)
    for step in range(count // lanes):
        found += products[:, step]
    exact = products.double().sum((1, 2))
    relative = float((found.double().sum(1) - exact).norm() / exact.norm())
    assert DOT_SHARE * dot(count, 0) <= math.sqrt(2) * relative <= dot(count, 0)


def test_errors_grow_with_what_makes_them() -> None:
    small = ErrorModel.of(tiny_config(), CONTEXT)
    assert list(small.outputs) == sorted(small.outputs)
    assert len(small.outputs) == len(small.routers) == 4
    assert small.logits > small.outputs[-1] > small.routers[-1] > small.outputs[-2]
    wide = ErrorModel.of(tiny_config(hidden_size=512, intermediate_size=1024), CONTEXT)
    deep = ErrorModel.of(
        tiny_config(num_hidden_layers=16, layer_types=["full_attention"] * 16), CONTEXT
    )
    assert min(wide.logits, deep.logits) > 1.3 * small.logits
    kinds = [
        small,
        ErrorModel.of(tiny_config(), CONTEXT, products="two bfloat16 terms"),
        ErrorModel.of(tiny_config(), CONTEXT, cache="float16"),
        ErrorModel.of(tiny_config(), CONTEXT, cache="bfloat16"),
        ErrorModel.of(tiny_config(), CONTEXT, activations="int8"),
    ]
    assert [kind.logits for kind in kinds] == sorted(kind.logits for kind in kinds)


def test_only_int8_weights_at_level_amx_meet_bfloat16_terms(demo_package: Package) -> None:
    plain = demo_package.manifest
    int8 = dataclasses.replace(plain, ops=(OpUse("ai.gptoss", "LinearInt8", 1, 1),))
    assert products_of(int8, "native", "amx") == "two bfloat16 terms"
    others = (plain, "native", "amx"), (int8, "native", "avx512_bf16"), (int8, "portable", "")
    assert {products_of(*each) for each in others} == {"float32"}


def test_limits_grow_with_the_logits_and_slowly_with_their_number() -> None:
    errors = ErrorModel.of(tiny_config(), CONTEXT)
    one, ten = (exact_limits(errors, scale, 320) for scale in (1.0, 10.0))
    assert ten.max_abs == pytest.approx(10 * one.max_abs)
    assert ten.kl == pytest.approx(100 * one.kl)
    assert exact_limits(errors, 1.0, 201088).max_abs < 1.5 * one.max_abs
    assert one.max_abs < EXACT.max_abs / 10  # tiny models are held much closer


def test_the_reference_in_other_pieces_is_within_the_limits(tiny_checkpoint: Path) -> None:
    """One token a call over the cache, against all of them at once."""
    with open_checkpoint(tiny_checkpoint) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint)
    expected = Expected(model, seed=1)
    tokens = expected.tokens(50)
    limits = exact_limits(expected.errors, expected.scale(tokens), model.config.vocab_size)
    found, cache = [], model.new_cache(1, len(tokens))
    one = torch.ones(1, dtype=torch.int64)
    for place, token in enumerate(tokens):
        logits, cache = model(torch.tensor([[token]]), place * one, one, 0 * one[None], cache)
        found.append(logits[0].numpy())
    difference = compare(np.concatenate(found), expected.score(tokens).logits)
    assert difference.max_abs > 0
    assert limits.hold(difference), (difference, limits)


SEEN = [name for name in FAULTS if name != "one bf16 weight's lowest bit"]  # weights show that


@pytest.mark.parametrize("name", ["none", *SEEN])
def test_small_true_faults_are_seen(
    demo_package: Package, demo_checkpoint: Path, name: str
) -> None:
    with open_checkpoint(demo_checkpoint) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint)
    if name in FAULTS:
        FAULTS[name](model)
    expected = Expected(model, seed=1)
    tokens = expected.tokens(120)
    limits = exact_limits(expected.errors, expected.scale(tokens), model.config.vocab_size)
    with Session.open(demo_package.folder) as session:
        found = session.score(tokens, chunk=len(tokens))
    assert judge(found, expected.score(tokens), limits).passed is (name == "none")


def difference(positions: int, kl: float, differing: int) -> Difference:
    return Difference(positions, 0.0, 0.0, kl, 1 - differing / positions)


@pytest.mark.parametrize("limits", [*CACHES.values(), *ACTIVATIONS.values()], ids=str)
def test_few_positions_are_judged_as_few(limits) -> None:
    assert limits.hold(difference(1, 2 * limits.kl, 1))  # one odd position of one
    assert not limits.hold(difference(1, 1.1 * LEAST_POSITIONS * limits.kl, 0))
    assert not limits.hold(difference(LEAST_POSITIONS, 1.1 * limits.kl, 0))
    assert limits.hold(difference(LEAST_POSITIONS, limits.kl, 1))
    assert not limits.hold(difference(LEAST_POSITIONS, limits.kl, LEAST_POSITIONS // 2))
    wrong = round(1000 * (1 - limits.top1))
    assert limits.hold(difference(1000, limits.kl, wrong))
    assert not limits.hold(difference(1000, limits.kl, 2 * wrong + 5))


@pytest.mark.parametrize("name", ["max_abs", "kl", "top1"])
def test_nothing_unknown_passes(name: str) -> None:
    good = difference(100, 0.0, 0)
    assert EXACT.hold(good)
    assert not EXACT.hold(dataclasses.replace(good, **{name: float("nan")}))
