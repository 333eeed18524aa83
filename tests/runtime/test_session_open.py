"""Session.open: packages and settings that cannot be honoured, kernels, providers."""

import dataclasses
import logging
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # ships no stubs
import pytest

from gptoss_onnx.custom_ops import library
from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.extras import install_command
from gptoss_onnx.manifest import Manifest, OpUse
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.runtime.kernels import choose_kernels
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_fake_package(tmp_path / "package", WINDOWS)


def _change(package: Path, **changes: Any) -> Manifest:
    manifest = dataclasses.replace(Manifest.read(package), **changes)
    manifest.write(package)
    return manifest


def test_a_package_may_be_reached_through_a_link(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package)
    with Session.open(tmp_path / "link", threads=1) as session:
        assert session.score([1, 2]).shape == (2, VOCAB)


def test_weights_lie_in_the_package_or_where_it_refers_to(tmp_path: Path) -> None:
    bias = np.arange(VOCAB, dtype=np.float32)
    elsewhere = tmp_path / "checkpoint"
    for folder in (None, elsewhere):
        package = write_fake_package(
            tmp_path / f"package-{folder is None}",
            WINDOWS,
            bias=bias.tolist(),
            weights_folder=folder,
        )
        with Session.open(package, threads=1) as session:
            np.testing.assert_array_equal(
                session.score([3])[0], expected_logits([3], WINDOWS, 0) + bias
            )
    shutil.rmtree(elsewhere)
    with pytest.raises(
        PackageError, match="no such folder, but the package refers to the checkpoint there"
    ):
        Session.open(package)


def test_changed_weights_are_noticed(package: Path) -> None:
    weights = package / "weights.safetensors"
    content, stat = weights.read_bytes(), weights.stat()

    def rewrite(changed: bytes, mtime_ns: int) -> None:
        weights.write_bytes(changed)
        os.utime(weights, ns=(mtime_ns, mtime_ns))

    rewrite(content + b"\0", stat.st_mtime_ns)
    with pytest.raises(
        PackageError,
        match=r"weights\.safetensors: changed .* found \d+ bytes, expected \d+; export again",
    ):
        Session.open(package)
    rewrite(content.replace(b"F32", b"I32"), stat.st_mtime_ns)
    with pytest.raises(PackageError, match=r"changed .* found safetensors header"):
        Session.open(package)
    rewrite(b"\0" * len(content), stat.st_mtime_ns)
    with pytest.raises(PackageError, match=r"not a safetensors file"):
        Session.open(package)
    # Another training step in place: the header is the same, the time is not.
    rewrite(content, stat.st_mtime_ns + 1)
    with pytest.raises(PackageError, match=r"changed .* found modification time"):
        Session.open(package)
    entry = dataclasses.replace(Manifest.read(package).weights, mode="copy")
    _change(package, weights=entry)
    Session.open(package, threads=1).close()  # a self-contained folder may be copied
    weights.unlink()
    with pytest.raises(PackageError, match=r"weights\.safetensors: cannot be read \(No such file"):
        Session.open(package)


def test_graphs_that_do_not_fit_are_refused(package: Path) -> None:
    layers = Manifest.read(package).cache
    _change(package, cache=layers[:2])
    with pytest.raises(
        PackageError,
        match=r"its inputs differ from the manifest: missing \[\], unknown \['past_key",
    ):
        Session.open(package)
    _change(package, cache=layers, target="ort")
    with pytest.raises(
        PackageError, match=r"its inputs differ from the manifest: missing \['attention_mask'\]"
    ):
        Session.open(package)
    _change(package, target="portable")
    document = (package / "manifest.json").read_text()
    (package / "manifest.json").write_text(document.replace('"portable"', '"abacus"'))
    with pytest.raises(PackageError, match="target: found 'abacus', expected portable or ort"):
        Session.open(package)
    (package / "manifest.json").write_text(document)
    (package / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(PackageError, match=r"model\.onnx: not an ONNX model \(found wire type 6\)"):
        Session.open(package)
    (package / "model.onnx").write_bytes(b"\x3a\x00")  # an empty graph
    with pytest.raises(PackageError, match=r"model\.onnx: ONNX Runtime cannot load it: [^\n]*$"):
        Session.open(package)
    (package / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"model\.onnx: no such file"):
        Session.open(package)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernels": "fast"}, "kernels: found 'fast', expected one of auto, native, portable"),
        ({"activations": "fp8"}, "activations: found 'fp8'"),
        ({"provider": "tpu"}, "provider: found 'tpu', expected one of cpu, cuda"),
        ({"threads": 0}, "threads: found 0, expected an integer, 1 to 1024"),
    ],
)
def test_unknown_settings_are_named(package: Path, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Session.open(package, **arguments)


# Kernels


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the native library: the list says which kernels it has."""
    kernels: list[str] = []
    info = library.LibraryInfo(Path("libgptoss_ops.so"), "1.2", frozenset(), "scalar")
    monkeypatch.setattr(library, "library_path", lambda: info.path)
    monkeypatch.setattr(
        library, "library_info", lambda: dataclasses.replace(info, kernels=frozenset(kernels))
    )
    return kernels


@pytest.fixture
def manifest(package: Path) -> Manifest:
    return _change(
        package, ops=tuple(OpUse("ai.gptoss", name, 1, 3) for name in ("Linear", "SinkAttention"))
    )


def test_auto_takes_native_where_every_op_has_a_kernel(
    manifest: Manifest, offered: list[str]
) -> None:
    offered += ["SinkAttention"]
    choice = choose_kernels(manifest, "auto", "exact", "cpu")
    assert choice.kernels == "portable"
    assert "no kernel for Linear (it has SinkAttention)" in choice.reason
    offered += ["Linear", "MoEDispatch"]
    assert choose_kernels(manifest, "auto", "exact", "cpu").kernels == "native"
    assert choose_kernels(manifest, "auto", "int8", "cpu").kernels == "native"
    assert choose_kernels(manifest, "portable", "exact", "cpu").kernels == "portable"
    assert choose_kernels(manifest, "auto", "exact", "cuda").kernels == "portable"


def test_native_kernels_that_are_missing_are_named(
    manifest: Manifest, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered += ["SinkAttention"]
    for kernels, activations, provider, message in (
        ("native", "exact", "cpu", "native kernels: .*no kernel for Linear"),
        ("auto", "bf16", "cpu", "activations bf16 need the native kernels: .*no kernel for Linear"),
        ("portable", "bf16", "cpu", "activations bf16: only the native kernels have them"),
        ("native", "exact", "cuda", "run on the CPU only"),
    ):
        with pytest.raises(RuntimeUnavailable, match=message):
            choose_kernels(manifest, kernels, activations, provider)
    monkeypatch.setattr(library, "library_path", lambda: None)
    with pytest.raises(RuntimeUnavailable, match="the library is not built; reinstall"):
        choose_kernels(manifest, "native", "exact", "cpu")


def test_the_choice_is_logged(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "gptoss_onnx"),
        Session.open(package, kernels="portable", threads=1) as session,
    ):
        assert session.kernels == "portable"
    assert "portable kernels (asked for), provider cpu" in caplog.text


# The machine


def test_both_builds_of_onnxruntime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(
        RuntimeUnavailable, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"
    ):
        load_onnxruntime()


def test_a_missing_onnxruntime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        RuntimeUnavailable, match=f"it is not installed; {re.escape(install_command('cpu'))}"
    ):
        load_onnxruntime()


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no onnxruntime-gpu",
)
def test_caches_live_on_the_device(package: Path) -> None:
    tokens = np.arange(30) % VOCAB
    with Session.open(package, provider="cuda") as session:
        np.testing.assert_array_equal(
            session.score(tokens, 7)[-1], expected_logits(tokens.tolist(), WINDOWS, 29)
        )
        cache = session.new_cache(1, 20, chunk=4)
        session.forward(tokens[None, :17], cache)
        cache.grow(40)
        for held in (cache.fork(), cache):
            logits = session.forward(tokens[None, 17:], held)
            np.testing.assert_array_equal(
                logits[0, 0], expected_logits(tokens.tolist(), WINDOWS, 29)
            )


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this is the GPU build"
)
def test_cuda_never_falls_back(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RuntimeUnavailable,
        match=r"provider cuda: this ONNX Runtime offers .*CPUExecutionProvider, not CUDA",
    ):
        Session.open(package, provider="cuda")
    # The GPU build on a machine without a device.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.raises(RuntimeUnavailable, match="provider cuda: no CUDA device can be used"):
        Session.open(package, provider="cuda")
    # Even if a device answers, the session itself must be on it.
    monkeypatch.setattr("gptoss_onnx.runtime.environment._check_cuda_device", lambda _: None)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(RuntimeUnavailable, match="fell back"),
    ):
        Session.open(package, provider="cuda")


def test_the_runtime_loads_no_training_library(package: Path) -> None:
    program = (
        "import sys; from gptoss_onnx.runtime import Session; "
        f"session = Session.open({str(package)!r}, threads=1); list(session.generate([1, 2], "
        "max_new_tokens=2)); "
        "print([name for name in ('torch', 'transformers', 'onnxscript', 'onnx') if name in "
        "sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
