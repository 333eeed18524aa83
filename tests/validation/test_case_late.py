"""The cache that is full of random keys and values: it lies where real ones do, and what is wrong
with late positions shows in the logits.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.validation.cases import positions
from gptoss_onnx.validation.cases.late import HeldLayer, held_layers, place, pretend
from gptoss_onnx.validation.cases.late import reference_caches as caches_of
from gptoss_onnx.validation.judging.expected import Past
from gptoss_onnx.validation.judging.limits import EXACT
from support.parity_setting import parity_setting
from support.tolerances import ATTENTION_300

PAST = 70  # tokens: the windows of 8 have moved on
FAR = 1500


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_it_lies_where_a_real_run_puts_it(
    tiny_checkpoint: Path, tmp_path: Path, target: str
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", target=target)
    with parity_setting(package.folder, tiny_checkpoint) as setting:
        session, expected = setting.drive.session, setting.drive.expected
        tokens = expected.named("past", PAST)
        layers = session.manifest.cache
        drawn = held_layers(layers, "float32", PAST, expected, tokens)
        real = [
            HeldLayer(part.layer, part.positions, *(kept[0][:, part.positions] for kept in pair))
            for part, pair in zip(drawn, expected.caches(tokens), strict=True)
        ]
        with session.new_cache(1, PAST + 1, chunk=16) as ran:
            session.forward([tokens], ran)
            with session.new_cache(1, PAST + 1, chunk=16) as placed:
                pretend(placed, [PAST])
                place(placed, 0, real)
                assert (placed.lengths == ran.lengths).all()
                assert (placed.window_starts == ran.window_starts).all()
                found = [session.forward([[7]], cache) for cache in (ran, placed)]
        np.testing.assert_allclose(found[0], found[1], atol=10 * ATTENTION_300, rtol=0)


def test_faults_of_late_positions_show(tiny_package, tiny_checkpoint: Path) -> None:
    with parity_setting(tiny_package.folder, tiny_checkpoint) as setting:
        expected = setting.drive.expected
        layers = setting.drive.session.manifest.cache
        held = held_layers(layers, "float32", FAR, expected, setting.drive.sequence)

        def logits(name: str, held: list[HeldLayer]) -> np.ndarray:
            past = Past(FAR, name, lambda new: caches_of(held, FAR, new))
            return expected.score(list(range(positions.NEW)), past).logits

        right = logits("right", held)
        half = [replace(part, values=part.values.clone()) for part in held]
        for part in half:
            part.values[:, part.positions < FAR // 2] = 0
        rotation = expected.model._rotation
        turned = held
        found = {"half of it left out": logits("half", half)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(expected.model, "_rotation", lambda places: rotation(places + 1))
            found["one position further"] = logits("turned", turned)
        for name, wrong in found.items():
            assert np.abs(wrong - right).max() > 100 * EXACT.max_abs, name


def test_what_takes_too_much_memory_is_named(
    tiny_package, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with parity_setting(tiny_package.folder, tiny_checkpoint) as setting:
        drive = setting.drive
        lengths, note = positions.late_lengths(drive, 64)
        assert max(lengths) + positions.NEW == drive.sizes.longest
        assert not note
        monkeypatch.setattr(positions, "MOST_BYTES", positions.cache_bytes(drive, 600))
        fewer, note = positions.late_lengths(drive, 64)
        assert max(fewer) == 512  # the half of a half of the context
        assert note.startswith(f"not judged after {min(set(lengths) - set(fewer))}")
        assert "a case takes" in note
