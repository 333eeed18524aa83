"""A router that chooses by a hair decides no verdict, and excuses none."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.experts_int4 import int4_names, use_experts_int4
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.judging.continuation import judge_continuation
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import CACHES, EXACT
from gptoss_onnx.validation.judging.near_ties import MOST_CHOICES, NearTie, watched
from gptoss_onnx.validation.judging.outcome import Outcome, Tie, judge
from gptoss_onnx.validation.judging.scored import Scored
from gptoss_onnx.validation.judging.settle import RUNS, Run, settle
from support.tolerances import TIED_ROUTERS

POSITIONS, VOCABULARY = 20, 50
TOP_K = 2


def tie(position: int, layer: int = 0, chosen: tuple[int, ...] = (1,), others=(4,)) -> NearTie:
    return NearTie(position, layer, 1e-7, chosen, others, chosen)


def test_the_choices_of_a_tie_exchange_the_fewest_experts_first() -> None:
    assert [choice.taken for choice in tie(0).choices()] == [(4,)]
    wide = list(tie(0, chosen=(1, 2), others=(4, 5)).choices())
    assert [choice.taken for choice in wide] == [(2, 4), (2, 5), (1, 4), (1, 5), (4, 5)]
    assert [choice.left for choice in wide] == [(1, 5), (1, 4), (2, 5), (2, 4), (1, 2)]
    assert all(choice.turned for choice in wide)
    many = tie(0, chosen=tuple(range(8)), others=tuple(range(8, 16)))
    assert len(list(many.choices())) == MOST_CHOICES


# A model of tables instead of layers: each turned tie moves the logits from its position on.


class Table:
    """Logits (T, V) that `effect` adds to where a tie is turned; counts its runs."""

    def __init__(self, ties: tuple[NearTie, ...]) -> None:
        self.ties, self.runs = ties, 0
        self.plain = np.random.default_rng(0).normal(size=(POSITIONS, VOCABULARY))

    def __call__(self, turned: tuple[NearTie, ...]) -> Run:
        self.runs += 1
        logits = self.plain.copy()
        for one in turned:
            effect = np.random.default_rng([one.position, one.layer]).normal(size=VOCABULARY)
            logits[one.position :] += effect
        places = {(one.position, one.layer) for one in turned}
        left = tuple(one for one in self.ties if (one.position, one.layer) not in places)
        return Run(logits.astype(np.float32), left)

    def with_turned(self, *turned: NearTie) -> np.ndarray:
        return self(tuple(next(one.choices()) for one in turned)).logits

    def scored(self) -> Scored:
        places = np.arange(POSITIONS)
        return Scored(places, 0 * places, (self,))


TIES = (tie(3, 0), tie(3, 2), tie(7, 1), tie(12, 0), tie(12, 3))


@pytest.mark.parametrize(
    "turned", [(), TIES[1:2], TIES[:2], TIES[1:4], TIES], ids=lambda ties: f"{len(ties)} turned"
)
def test_the_run_that_fits_is_found(turned: tuple[NearTie, ...]) -> None:
    table = Table(TIES)
    outcome = judge(table.with_turned(*turned), table.scored(), EXACT)
    assert outcome.passed, outcome.note
    assert [(one.position, one.layer) for one in flipped(outcome)] == [
        (one.position, one.layer) for one in turned
    ]
    assert len(outcome.ties) == len(TIES)  # the others are listed, too
    assert max(outcome.by_position) <= EXACT.max_abs
    assert ("it takes expert 4; the reference takes expert 1" in outcome.note) is bool(turned)


def flipped(outcome: Outcome) -> list[Tie]:
    """The ties of an outcome that were not decided as the reference does."""
    return [one for one in outcome.ties if "the reference takes" in one.decided]


@pytest.mark.parametrize("place", [1, 3, 8, 19])
def test_a_tie_excuses_nothing_else(place: int) -> None:
    """Not even at a tied position, or behind one."""
    table = Table(TIES)
    found = table.with_turned(TIES[0], TIES[2])
    found[place, 7] += 2 * EXACT.max_abs
    outcome = judge(found, table.scored(), EXACT)
    assert outcome.passed is False
    assert table.runs <= RUNS + 2


def test_positions_that_were_not_compared_have_ties_too() -> None:
    table = Table(TIES)
    rows = [9, 10, 19]
    outcome = judge(table.with_turned(TIES[1])[rows], table.scored()[rows], EXACT)
    assert outcome.passed, outcome.note
    assert (len(flipped(outcome)), len(outcome.ties)) == (1, 5)


def test_rows_of_one_sequence_may_decide_differently() -> None:
    table = Table(TIES)
    found = np.concatenate(
        [table.with_turned(TIES[0]), table.with_turned(), table.with_turned(TIES[3])]
    )
    outcome = judge(found, Scored.join([table.scored() for _ in range(3)]), EXACT)
    assert outcome.passed, outcome.note


def test_the_search_ends() -> None:
    table = Table(tuple(tie(0, layer) for layer in range(7)))
    places = list(range(POSITIONS))
    settled = settle(table, places, lambda logits: np.ones(POSITIONS, bool), runs=RUNS)
    assert (settled.runs, table.runs) == (RUNS, RUNS + 1)
    assert settled.turned == ()


@pytest.mark.parametrize("limits", [EXACT, CACHES["float16"]], ids=["exact", "lossy"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (-np.inf, "-inf")])
def test_what_is_not_finite_fails_and_is_named(limits: Any, value: float, name: str) -> None:
    table = Table(TIES)
    found = table.with_turned()
    found[12:14, 7] = value
    outcome = judge(found, table.scored(), limits)
    assert outcome.passed is False
    assert f"found {name} for token 7 at position 12" in outcome.note
    assert "2 of 20 positions" in outcome.note
    assert [index for index, error in enumerate(outcome.by_position) if error == np.inf] == [12, 13]


def test_lossy_settings_are_judged_by_their_distribution() -> None:
    """Positions behind a tie may be off as far as another expert moves them, and no further."""
    table, limits = Table(TIES[3:]), CACHES["float16"]
    found = table.with_turned()
    found[12:] += 0.1 * np.random.default_rng(1).normal(size=found[12:].shape)
    outcome = judge(found, table.scored(), limits)
    assert outcome.passed is True
    assert "8 of 20 positions come after a router that chose by a hair" in outcome.note
    found[12:] = np.random.default_rng(1).normal(size=found[12:].shape)
    assert judge(found, table.scored(), limits).passed is False
    found = table.with_turned()
    found[:12] += 0.2 * np.random.default_rng(1).normal(size=found[:12].shape)
    assert judge(found, table.scored(), limits).passed is False


# The reference


def open_model(folder: Path) -> Decoder:
    with open_checkpoint(folder) as checkpoint:
        return Decoder.from_checkpoint(checkpoint)


def test_tokens_are_drawn_again_from_the_first_near_tie_on(tiny_checkpoint: Path) -> None:
    expected = Expected(open_model(tiny_checkpoint), seed=1, near=TIED_ROUTERS)
    assert not expected.score(expected.draw(POSITIONS)).decided.all()
    assert expected.score(expected.tokens(POSITIONS)).decided.all()


def test_a_turned_tie_changes_its_position_and_those_behind(tiny_checkpoint: Path) -> None:
    expected = Expected(open_model(tiny_checkpoint), seed=1, near=TIED_ROUTERS)
    scored = expected.score(expected.draw(POSITIONS))
    run = scored.sources[0]
    first = run(()).ties[0]
    turned = run((next(first.choices()),)).logits
    changed = np.flatnonzero((turned != scored.logits).any(-1))
    assert changed[0] == first.position
    assert set(changed) <= set(range(first.position, POSITIONS))


def test_rounded_experts_have_routers_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = open_model(tiny_checkpoint)
    stored = {}
    for name, blocks in model.state_dict().items():
        if name.endswith("_blocks"):
            codes, scales = int4_names(name.removesuffix("_blocks"))
            stored[codes] = blocks.flatten(2).contiguous()
            stored[scales] = torch.ones(blocks.shape[:3])
    save_file(stored, tmp_path / "int4.safetensors")
    expected = Expected(use_experts_int4(model, tmp_path / "int4.safetensors"), seed=1, near=np.inf)
    assert not expected.score([1, 2, 3]).decided.any()


# Packages


def checkpoint_with(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], **changes: Any
) -> Path:
    """Write a float32 checkpoint and change its tensors."""
    document = tiny_document(num_experts_per_tok=TOP_K, **changes)
    make_checkpoint(folder, document, layout="hf-bf16", dtype="F32", seed=5)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


def twins(gap: float, tensors: dict[str, torch.Tensor]) -> None:
    """Give experts 1 and 4 of layer 2 the same router row, but for `gap` more for expert 1."""
    router = "model.layers.2.mlp.router"
    tensors[f"{router}.weight"][4] = tensors[f"{router}.weight"][1]
    tensors[f"{router}.bias"][4] = tensors[f"{router}.bias"][1] - gap


@pytest.fixture(scope="module")
def other_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose router prefers expert 4 to its twin, 1, by less than rounding."""
    folder = tmp_path_factory.mktemp("twins")
    checkpoint = checkpoint_with(folder / "checkpoint", partial(twins, -TIED_ROUTERS / 1e6))
    return export(checkpoint, folder / "package").folder


@pytest.mark.parametrize("gap", [0.0, TIED_ROUTERS / 1e6, TIED_ROUTERS / 10])
def test_a_package_that_takes_the_other_twin(tmp_path: Path, other_twin: Path, gap: float) -> None:
    """Every token at which both are the last that could be chosen ties, so none can be avoided."""
    reference = checkpoint_with(tmp_path / "checkpoint", partial(twins, gap))
    report = validate(other_twin, reference, kernels="native")
    is_tie = gap < TIED_ROUTERS / 10
    assert (report.failed() == []) is is_tie, report.table()
    assert ("it takes expert 4; the reference takes expert 1" in report.table()) is is_tie


def test_twins_excuse_no_other_fault(tmp_path: Path, other_twin: Path) -> None:
    def fault(tensors: dict[str, torch.Tensor]) -> None:
        twins(0.0, tensors)
        tensors["model.layers.3.mlp.experts.down_proj_bias"][2] *= 1.01

    reference = checkpoint_with(tmp_path / "checkpoint", fault)
    report = validate(other_twin, reference, kernels="native")
    assert "prefill" in report.failed()


def test_a_continuation_goes_on_behind_a_tie(tiny_checkpoint: Path) -> None:
    """Of two logits, within twice the allowed error."""
    expected = Expected(open_model(tiny_checkpoint), seed=1)
    prompt = expected.tokens(8)
    best = expected.greedy(prompt, 6)
    assert judge_continuation(best, prompt, expected, EXACT).note == "6 tokens equal"
    logits = expected.score([*prompt, *best[:2]]).logits[-1]
    second = int(np.argsort(logits)[-2])
    margin = float(np.sort(logits)[-1] - np.sort(logits)[-2])
    found = [*best[:2], second]
    found += expected.greedy([*prompt, *found], 3)
    for share, passed in ((0.51, True), (0.49, False)):
        limits = type(EXACT)(share * margin, EXACT.kl, EXACT.top1)
        outcome = judge_continuation(found, prompt, expected, limits)
        assert outcome.passed is passed
        assert ("token 2 ties with the reference's" in outcome.note) is passed
    found[4] = int(np.argmin(logits))
    outcome = judge_continuation(found, prompt, expected, limits)
    assert outcome.passed is False


def test_layers_without_routers_have_no_ties(tiny_checkpoint: Path) -> None:
    model = open_model(tiny_checkpoint)
    with watched(model, [0.0] * 4) as ties:
        model.score([1, 2, 3])
    assert ties == []
