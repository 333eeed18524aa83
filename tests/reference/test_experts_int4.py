"""`export --target ort --experts int4`: MXFP4 rounded to the nearest 4-bit integers, named,
measured, and refused.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from gptoss_onnx.custom_ops.mxfp4 import LEVELS, decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_int4 import decode_int4, mxfp4_as_int4, mxfp4_int4_scales
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate, write_golden_vectors
from support.tolerances import INT4_ROUNDING

LOSS = "int4 experts"
STEPS = (1, 1.5, 2, -1, -1.5, -2)  # in halves of the scale


@pytest.fixture(scope="module")
def package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("int4") / "package"
    return export(demo_checkpoint, folder, target="ort", experts="int4", dense="checkpoint")


def rounded(block: bytes, exponent: int) -> np.ndarray:
    """The weights of one block, by way of codes and scales."""
    blocks, scales = (
        torch.frombuffer(bytearray(block), dtype=torch.uint8)[None],
        torch.tensor([exponent]).byte(),
    )
    codes, steps = mxfp4_as_int4(blocks)
    return decode_int4(codes, mxfp4_int4_scales(steps, scales)[:, None])[0].double().numpy()


@settings(max_examples=200, deadline=None)
@given(block=st.binary(min_size=16, max_size=16), exponent=st.integers(2, 252))
def test_no_other_step_loses_less(block: bytes, exponent: int) -> None:
    """Against all integers and steps there are, tried one by one in float64."""
    levels = np.array([LEVELS[nibble] for byte in block for nibble in (byte & 15, byte >> 4)])
    scale = 2.0 ** (exponent - 127)
    reachable = np.array([[step / 2 * integer for integer in range(-8, 8)] for step in STEPS])
    least = np.abs(levels[None, :, None] - reachable[:, None]).min(-1) ** 2  # (step, value)
    lost = (rounded(block, exponent) / scale - levels) ** 2
    assert lost.sum() == least.sum(-1).min()


@settings(max_examples=60, deadline=None)
@given(nibbles=st.lists(st.sampled_from([*range(6), *range(8, 14)]), min_size=32, max_size=32))
def test_blocks_of_small_levels_lose_nothing(nibbles: list[int]) -> None:
    block = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    np.testing.assert_array_equal(rounded(block, 127), [LEVELS[nibble] for nibble in nibbles])


def test_rounded_weights_are_exact_in_bfloat16() -> None:
    blocks = torch.randint(256, (500, 16), generator=torch.Generator().manual_seed(0)).byte()
    codes, steps = mxfp4_as_int4(blocks)
    scales = mxfp4_int4_scales(steps, torch.full((500,), 120).byte())[:, None]
    assert torch.equal(
        decode_int4(codes, scales, torch.bfloat16).float(), decode_int4(codes, scales)
    )


def test_the_file_holds_what_the_checkpoint_rounds_to(
    demo_checkpoint: Path, package: Package
) -> None:
    ours, theirs = (
        load_file(package.folder / ORT_WEIGHTS),
        load_file(demo_checkpoint / "model.safetensors"),
    )
    stems = [name.removesuffix("_blocks") for name in theirs if name.endswith("_blocks")]
    assert len(stems) == 12
    for stem in stems:
        expected = decode_mxfp4(theirs[f"{stem}_blocks"], theirs[f"{stem}_scales"])
        found = decode_int4(ours[f"{stem}_int4"], ours[f"{stem}_int4_scales"])
        assert found.shape == expected.shape
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert 0 < error < INT4_ROUNDING
    others = {name for name in ours if not name.endswith(("_int4", "_int4_scales", "_float32"))}
    assert all(torch.equal(ours[name], theirs[name]) for name in others)


def test_graph_and_manifest_say_so(package: Package, ort_int8_package: Package) -> None:
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
    experts = [node for node in graph.node if node.op_type == "QMoE"]
    bits = [
        (attribute.name, attribute.i)
        for node in experts
        for attribute in node.attribute
        if "bits" in attribute.name
    ]
    assert bits == [("expert_weight_bits", 4)] * 6
    assert package.manifest.lossy == ("experts in int4 (block 32)",)
    assert not package.manifest.weights.bit_identical
    made = (package, ort_int8_package)
    sizes = [(each.folder / ORT_WEIGHTS).stat().st_size for each in made]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_validate_judges_the_package_and_measures_the_loss(
    package: Package, demo_checkpoint: Path, activations: str
) -> None:
    report = validate(package.folder, demo_checkpoint, activations=activations)
    assert report.passed, report.table()
    loss = report.cell(LOSS)
    assert loss.difference.kl > 1e-3  # measured, and really lossy
    assert "against the checkpoint's own weights (KL ≤" in report.table()


def test_validate_fails_where_the_rounded_weights_are_others(
    package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    """The package agrees with itself and not with the checkpoint."""
    folder = shutil.copytree(package.folder, tmp_path / "package", copy_function=os.link)
    content = bytearray((folder / ORT_WEIGHTS).read_bytes())
    content[-500_000:] = b"\x88" * 500_000  # codes of 0
    (folder / ORT_WEIGHTS).unlink()
    (folder / ORT_WEIGHTS).write_bytes(content)
    report = validate(folder, demo_checkpoint)
    assert report.failed() == [LOSS]


def test_golden_vectors_written_later_are_the_same(
    package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(package.folder, tmp_path / "package", copy_function=os.link)
    shutil.move(folder / "golden", tmp_path / "golden")
    write_golden_vectors(folder, demo_checkpoint)
    written = [
        (place / "golden.json").read_text() for place in (tmp_path / "golden", folder / "golden")
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "--experts int4: found with --target portable"),
        ({"target": "ort", "provider": "cuda"}, "--experts int4: found with --provider cuda"),
        (
            {"experts": "int3", "target": "ort"},
            "experts: found 'int3', expected one of checkpoint, mxfp4, int8, int4",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    demo_checkpoint: Path, tmp_path: Path, options: dict[str, str], named: str
) -> None:
    with pytest.raises(InputError, match=f"^{named}"):
        export(demo_checkpoint, tmp_path / "package", **{"experts": "int4", **options})
    assert not list(tmp_path.iterdir())


def test_dense_experts_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(), layout="hf-bf16")
    with pytest.raises(InputError, match=r"^--experts int4: found no MXFP4 experts, expected them"):
        export(tmp_path / "checkpoint", tmp_path / "package", target="ort", experts="int4")
    assert not (tmp_path / "package").exists()
