"""Faults that show under one condition only: the case that is made for it fails, and the plain
cases pass, most of them for never getting there.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.validation.cases.table import Setting, cases
from support.faulty_calls import GraphCall, every_call, wrong_where
from support.parity_setting import case_named, parity_setting

# The cases that there were when the faults below were found to pass them.
PLAIN = (
    "load",
    "prefill",
    "decode",
    "chunks of 7",
    "chunks of 64",
    "even batch",
    "ragged batch",
    "ragged chunks",
    "rewind",
    "empty past",
    "greedy",
)
LONGEST, VOCAB = 2048, 320  # of the tiny checkpoint
TINY = 1e-6  # logits: less than any limit, and other bits

Condition = Callable[[GraphCall], bool]


@pytest.fixture(scope="module")
def setting(tiny_package: Package, tiny_checkpoint: Path) -> Iterator[Setting]:
    with parity_setting(tiny_package.folder, tiny_checkpoint, "native") as opened:
        assert (opened.drive.sizes.longest, opened.drive.session.vocab) == (LONGEST, VOCAB)
        yield opened


def chunk_of(size: int) -> Condition:
    return lambda call: call.columns == size


def batch_of(rows: int) -> Condition:
    return lambda call: call.rows == rows


def another_cache_in_between() -> Condition:
    caches: list[KVCache] = []

    def condition(call: GraphCall) -> bool:
        caches.append(call.cache)
        return len(caches) > 1 and caches[-2] is not call.cache and call.inputs.past_lengths.any()

    return condition


def a_cache_used_before() -> Condition:
    caches: list[KVCache] = []

    def condition(call: GraphCall) -> bool:
        used = any(call.cache is cache for cache in caches)
        caches.append(call.cache)
        return used and not call.inputs.past_lengths.any()

    return condition


def reads_slots_that_nobody_wrote(call: GraphCall) -> bool:
    return any(np.isnan(key.array[:, :, -1]).any() for key, _ in call.cache.buffers)


# The case that must fail, and under which condition the logits are wrong.
FAULTS: dict[str, tuple[str, Condition]] = {
    **{f"chunks of {size}": ("every chunk size", chunk_of(size)) for size in (2, 16, 24, 32)},
    **{f"batches of {rows}": ("even batches", batch_of(rows)) for rows in (2, 4, 5, 6, 7, 8)},
    **{
        f"ragged batches of {rows}": (
            "ragged batches",
            lambda call, rows=rows: call.rows == rows and np.ptp(call.inputs.new_lengths) > 0,
        )
        for rows in (2, 4, 5, 6, 7, 8)
    },
    "two kept positions": ("kept positions", lambda call: call.kept == 2),
    "kept positions out of order": (
        "kept positions",
        lambda call: call.rows == 1 and (np.diff(call.inputs.logit_positions) < 0).any(),
    ),
    "a capacity over 512": ("capacities", lambda call: call.slots > 512),
    "a capacity of 512": ("capacities", lambda call: call.slots == 512),
    "beyond half of the context": (
        "late positions",
        lambda call: call.inputs.past_lengths.max() > LONGEST // 2,
    ),
    "the last position": (
        "late positions",
        lambda call: (call.inputs.past_lengths + call.columns).max() == LONGEST,
    ),
    "rows far apart": ("late rows", lambda call: np.ptp(call.inputs.past_lengths) > 512),
    "a used cache": ("reset", a_cache_used_before()),
    "another cache in between": ("two caches", another_cache_in_between()),
    "three threads": ("other threads", lambda call: call.threads == 3),
    "slots that nobody wrote": ("stale slots", reads_slots_that_nobody_wrote),
}


@pytest.fixture(scope="module")
def reached(setting: Setting) -> dict[str, set[str]]:
    """The conditions that each plain case reaches, and under `ids` the token ids of them all."""
    found: dict[str, set[str]] = {name: set() for name in PLAIN}
    now = ""

    def look(call: GraphCall, _: np.ndarray) -> None:
        found[now].update(name for name, (_, holds) in FAULTS.items() if holds(call))

    with every_call(look):
        for now in PLAIN:
            assert case_named(now, setting).run(setting).passed
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_the_case_that_is_made_for_it_fails(
    setting: Setting, reached: dict[str, set[str]], name: str
) -> None:
    case, condition = FAULTS[name]
    assert not [plain for plain, conditions in reached.items() if name in conditions]
    with every_call(wrong_where(condition)):
        outcome = case_named(case, setting).run(setting)
    assert outcome.passed is False, outcome


def test_every_size_of_a_call_is_tried(setting: Setting) -> None:
    sizes: set[int] = set()
    with every_call(lambda call, _: sizes.add(call.columns)):
        case_named("every chunk size", setting).run(setting)
    assert sizes >= set(range(1, min(64, setting.drive.sizes.length) + 1))


def test_every_token_id_is_tried(setting: Setting) -> None:
    ids: set[int] = set()
    with every_call(lambda call, _: ids.update(call.inputs.input_ids.flat)):
        for name in PLAIN:
            case_named(name, setting).run(setting)
    missed = sorted(set(range(VOCAB)) - ids)
    assert missed  # by chance, as with every sample
    condition = wrong_where(lambda call: (call.inputs.input_ids == missed[-1]).any())
    with every_call(condition):
        assert case_named("token ids", setting).run(setting).passed is False


def failing(setting: Setting, names: tuple[str, ...] = ()) -> set[str]:
    """Run cases, all of them if none is named, and return which fail."""
    chosen = [case for case in cases("quick", setting) if not names or case.name in names]
    return {case.name for case in chosen if case.run(setting).passed is False}


def test_other_bits_in_a_second_run(setting: Setting) -> None:
    def noise(call: GraphCall, logits: np.ndarray) -> None:
        logits += TINY * (call.number % 7)

    with every_call(noise):
        assert failing(setting, (*PLAIN, "same again")) == {"same again"}


def test_infinity_where_no_kernel_reads(setting: Setting) -> None:
    def spoil(call: GraphCall, _: np.ndarray) -> None:
        if (call.inputs.past_lengths.max() + call.columns) < call.slots:
            for layer, (key, _) in zip(call.cache.layers, call.cache.buffers, strict=True):
                if layer.window == 0:
                    key.array[0, 0, -1, 0] = np.inf

    with every_call(spoil):
        assert failing(setting, (*PLAIN, "finite caches")) == {"finite caches"}


def test_a_full_cache_that_takes_more(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Session.forward

    def lenient(self: Session, *arguments, **named) -> np.ndarray:
        try:
            return forward(self, *arguments, **named)
        except InputError:
            return np.zeros((1, 1, VOCAB), np.float32)

    monkeypatch.setattr(Session, "forward", lenient)
    assert failing(setting, (*PLAIN, "full cache")) == {"full cache"}


def test_a_fork_that_shares_its_buffers(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(self: KVCache) -> KVCache:
        twin = copy.copy(self)
        twin._rows, twin.bindings = self._rows.copy(), {}
        return twin

    monkeypatch.setattr(KVCache, "fork", fork)
    assert failing(setting, (*PLAIN, "fork")) == {"fork"}


def test_a_cache_that_forgets_when_it_grows(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = CacheBuffer.copied
    monkeypatch.setattr(CacheBuffer, "copied", lambda *arguments: 0 * copied(*arguments))
    assert failing(setting, (*PLAIN, "growing cache")) == {"growing cache"}
