"""Window layers on target ort for ONNX Runtime 1.32: what their buffers hold, who moves it, and
what a graph does for callers who know none of it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import Package
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime import Session, cache_buffer, cache_part
from gptoss_onnx.runtime.window_layout import SLACK, WindowLayout
from support.tolerances import PACKAGE_LOGITS

WINDOW = 32  # of the demo checkpoint, on every second layer


@pytest.fixture(scope="module")
def session(ort_package: Package) -> Iterator[Session]:
    with Session.open(ort_package.folder, threads=1) as opened:
        yield opened


def layer(window: int) -> CacheLayer:
    return CacheLayer(window, 0, 1, 8, "past.key", "past.value", "present.key", "present.value")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_buffers_hold_what_may_be_seen_and_never_overflow(data: st.DataObject) -> None:
    window = data.draw(st.integers(1, 200), "window")
    reserve, chunk = data.draw(st.integers(0, 90)), data.draw(st.integers(1, 300), "chunk")
    capacity = data.draw(st.integers(1, 2000), "capacity")
    layout = WindowLayout(window)
    slots = layout.slots(layer(window), 1, capacity, reserve, chunk)
    assert window <= slots <= max(window, capacity)
    length, start, largest = 0, 0, 0
    for _ in range(data.draw(st.integers(1, 40), "calls")):
        columns = min(data.draw(st.integers(1, chunk), "columns"), capacity - length)
        if columns == 0:
            break
        lengths, starts = np.array([length]), np.array([start])
        begin = int(layout.window_starts(lengths, starts, columns, slots, reserve)[0])
        assert start <= begin <= length
        start, largest = begin, max(largest, length)
        assert length - start + columns <= slots
        assert length - start <= window - 1 + reserve + SLACK or start == 0
        # A query after going back as far as it is promised, and the oldest that it sees.
        assert start == 0 or start <= largest - reserve - window + 1
        length += columns
        if not start:
            length -= data.draw(st.integers(0, length), "go back to anything")
        else:
            least = max(0, largest - reserve)
            length = data.draw(st.integers(min(least, length), length), "go back")


def test_slots_are_those_of_a_ring(session: Session) -> None:
    full, window = layer(0), layer(WINDOW)
    with session.new_cache(2, 2000, reserve=5, chunk=64) as cache:
        assert cache.slots(window) == WINDOW + 5 + 63
        assert cache.slots(full) == 2000 + 32
    with session.new_cache(1, 3, reserve=5) as small:
        assert [small.slots(each) for each in (full, window)] == [3, WINDOW]


def test_decoding_reads_little_beyond_the_window(session: Session) -> None:
    with session.new_cache(1, 400) as cache:
        most = 0
        for token in range(300):
            session.forward([[token]], cache)
            most = max(most, int(cache.lengths[0] - cache.window_starts[0]))
        assert most == WINDOW - 1 + SLACK
        assert cache.rewind_limit.tolist() == [299]


def test_a_move_that_is_cut_off_needs_a_reset(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = session.score([7, 8])
    with session.new_cache(1, 200) as cache:
        session.forward([list(range(150))], cache)

        def cut_off(layers: list[cache_buffer.BufferPair], *rows: NDArray[np.int64]) -> None:
            cache_buffer.drop_first(layers[:1], *rows)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(cache_part, "drop_first", cut_off)
            with pytest.raises(KeyboardInterrupt):
                session.forward([[1]], cache)
        with pytest.raises(InputError, match=r"cut off while it moved the windows .*; reset it"):
            session.forward([[1]], cache)
        cache.reset()
        found = session.forward([[7, 8]], cache)[0, 0]
    np.testing.assert_allclose(found, expected[1], atol=PACKAGE_LOGITS, rtol=0)


def test_callers_who_know_only_ids_mask_and_caches(ort_package: Package, session: Session) -> None:
    """As onnxruntime-genai runs it: window buffers as long as the window, full ones that grow."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(2048, size=(2, 90))
    graph = onnxruntime.InferenceSession(str(ort_package.folder / "model.onnx"))
    slots = {layer.past_key: layer.window for layer in session.manifest.cache}
    slots |= {layer.past_value: layer.window for layer in session.manifest.cache}
    caches = {
        spec.name: np.zeros((2, spec.shape[1], slots[spec.name], spec.shape[3]), np.float32)
        for spec in session.manifest.inputs
        if spec.name in slots
    }
    expected = [session.score(row) for row in tokens]
    for begin, end in ((0, 50), *((place, place + 1) for place in range(50, 90))):
        given = {"input_ids": tokens[:, begin:end], "attention_mask": np.ones((2, end), np.int64)}
        logits, *present = graph.run(None, given | caches)
        for row in range(2):
            np.testing.assert_allclose(
                logits[row, -1], expected[row][end - 1], atol=PACKAGE_LOGITS, rtol=0
            )
        names = [output.name for output in graph.get_outputs()][1:]
        caches = {
            name.replace("present", "past_key_values"): array
            for name, array in zip(names, present, strict=True)
        }


def test_negative_positions_count_from_the_end_of_a_row(
    ort_package: Package, session: Session
) -> None:
    tokens = np.arange(20).reshape(2, 10)
    graph = onnxruntime.InferenceSession(str(ort_package.folder / "model.onnx"))
    caches = {
        name: np.zeros((2, layer.kv_heads, 64, layer.head_dim), np.float32)
        for layer in session.manifest.cache
        for name in (layer.past_key, layer.past_value)
    }
    mask = np.arange(10) < np.array([[10], [4]])
    given = {"input_ids": tokens, "attention_mask": mask.astype(np.int64), **caches}
    given |= {"new_lengths": np.array([10, 4]), "logit_positions": np.array([[-1, 0, -3]])}
    found = graph.run(["logits"], given)[0]
    for row, length in enumerate((10, 4)):
        expected = session.score(tokens[row, :length])[[-1, 0, -3]]
        np.testing.assert_allclose(found[row], expected, atol=PACKAGE_LOGITS, rtol=0)


def test_a_graph_without_the_inputs_that_its_manifest_promises(
    ort_int8_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("promises")
    for path in ort_int8_package.folder.iterdir():
        if path.name != "manifest.json":
            (folder / path.name).symlink_to(path)
    for path in ("model.onnx", "weights.safetensors"):
        (folder / path).unlink()
        (folder / path).hardlink_to(ort_int8_package.folder / path)
    dataclasses.replace(ort_int8_package.manifest, unsupported=()).write(folder)
    missing = r"its optional inputs differ .* missing \['new_lengths', 'window_starts'\], unknown"
    with pytest.raises(PackageError, match=missing):
        Session.open(folder)
