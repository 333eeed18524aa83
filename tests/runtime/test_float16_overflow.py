"""A float16 cache that overflows: the error names the cache and the choice at export that mends
it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import export
from gptoss_onnx.runtime import Session
from support.fake_package import write_fake_package

WINDOWS = (0, 3, 8)
REMEDY = (
    r"expected numbers below 65520; export again with --kv-dtype float32 or --kv-dtype bfloat16$"
)


def test_logits_that_are_not_finite_are_traced_to_the_cache(tmp_path: Path) -> None:
    """Position p holds 9,000 (p + 1): the eighth token is the first beyond float16."""
    with Session.open(
        write_fake_package(tmp_path, WINDOWS, "float16", scale=9_000), threads=1
    ) as session:
        cache = session.new_cache(1, 20, chunk=4)
        assert np.isfinite(session.forward([[0] * 7], cache)).all()
        where = "layer 0: the value of row 0, head 0, slot 7 is not finite"
        overflow = rf"^cache: float16 overflowed: {where}, {REMEDY}"
        with pytest.raises(PackageError, match=overflow):
            session.forward([[1]], cache)
        assert cache.lengths.tolist() == [7]
        # Infinity beyond the end would reach later logits as 0 times infinity.
        for held in (cache, cache.fork()):
            with pytest.raises(
                InputError, match=r"cache: found numbers that are not finite .*; reset it, or make"
            ):
                session.forward([[1]], held)
        cache.reset()
        assert np.isfinite(session.forward([[0] * 7], cache)).all()
        with pytest.raises(PackageError, match="slot 7 is not finite"):
            next(session.generate([0] * 9))
        with pytest.raises(PackageError, match="slot 7 is not finite"):
            session.forward([[0] * 9] * 2, session.new_cache(2, 20), [3, 9])


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16"])
def test_wider_caches_hold_the_same_numbers(tmp_path: Path, kv_dtype: str) -> None:
    with Session.open(
        write_fake_package(tmp_path, WINDOWS, kv_dtype, scale=9_000), threads=1
    ) as session:
        assert np.isfinite(session.score([0] * 20)).all()


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_other_causes_are_not_blamed_on_the_cache(tmp_path: Path, bias: float) -> None:
    package = write_fake_package(tmp_path, WINDOWS, "float16", bias=[bias] * 18)
    with Session.open(package, threads=1) as session:
        assert not np.isfinite(session.score([0] * 5)).any()
        with pytest.raises(PackageError, match="logits: the largest is"):
            next(session.generate([0] * 5))


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_a_router_that_sees_nan_is_traced_to_the_cache(
    tiny_checkpoint: Path, tmp_path: Path, kernels: Any
) -> None:
    """Values of 1e6 in the first layer: the experts after it refuse NaN, and know nothing of a
    cache.
    """
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for file in tiny_checkpoint.iterdir():
        (checkpoint / file.name).write_bytes(file.read_bytes())
    weights = checkpoint / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.0.self_attn.v_proj.bias"
    tensors[name] = np.full_like(tensors[name], 1e6)
    save_file(tensors, weights, metadata={"format": "pt"})
    package = export(checkpoint, tmp_path / "package", kv_dtype="float16").folder
    with (
        Session.open(package, kernels, threads=1) as session,
        pytest.raises(
            PackageError,
            match=rf"^cache: float16 overflowed: layer 0: the value of row 0, .*{REMEDY}",
        ),
    ):
        session.score([1, 2, 3])
