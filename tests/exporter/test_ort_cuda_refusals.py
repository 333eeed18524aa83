"""What target ort for CUDA refuses: sessions, options and checkpoints."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session

LAYERS, HIDDEN, WIDTH, EXPERTS = 4, 64, 96, 6  # of tiny_config
BFLOAT16, FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def package(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return export(
        tiny_checkpoint, tmp_path_factory.mktemp("cuda") / "package", target="ort", provider="cuda"
    )


@pytest.fixture(scope="module")
def model(package: Package) -> onnx.ModelProto:
    return onnx.load(package.folder / "model.onnx", load_external_data=False)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            {"provider": "cpu"},
            "provider cpu: not offered by a package of target ort for cuda, expected cuda",
        ),
        (
            {"provider": "cuda", "kernels": "native"},
            "kernels native: not offered by a package of target ort for cuda",
        ),
        (
            {"provider": "cuda", "activations": "int8"},
            "activations int8: not offered by a package of target ort",
        ),
    ],
    ids=str,
)
def test_sessions_refuse_what_it_cannot_do(
    package: Package, options: dict[str, str], found: str
) -> None:
    with pytest.raises(RuntimeUnavailable, match=rf"^{found}[^\n]*$"):
        Session.open(package.folder, **options)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this build has CUDA"
)
def test_without_cuda_it_says_so(package: Package) -> None:
    with pytest.raises(
        RuntimeUnavailable, match=r"^provider cuda: this ONNX Runtime offers [^\n]*$"
    ):
        Session.open(package.folder, provider="cuda")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"target": "portable"}, "--provider cuda: found with --target portable"),
        (
            {"target": "ort", "kv_dtype": "float32"},
            "--kv-dtype float32: found with --target ort --provider cuda",
        ),
        (
            {"target": "ort", "kv_dtype": "float16"},
            "--kv-dtype float16: found with --target ort --provider cuda",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, str], found: str
) -> None:
    with pytest.raises(InputError, match=rf"^{found}[^\n]*$"):
        export(tiny_checkpoint, tmp_path / "package", provider="cuda", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "dtype", "found"),
    [
        ("hf-bf16", "BF16", "found no MXFP4 experts, expected them"),
        ("hf-mxfp4", "F32", "found F32, expected BF16"),
    ],
)
def test_checkpoints_it_cannot_hold_losslessly_are_refused(
    tmp_path: Path, layout: str, dtype: str, found: str
) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(), layout=layout, dtype=dtype)
    with pytest.raises(InputError, match=rf"^--provider cuda: [^\n]*{found}[^\n]*$"):
        export(tmp_path / "checkpoint", tmp_path / "package", target="ort", provider="cuda")
    assert not (tmp_path / "package").exists()


def test_the_command_line_exports_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "package"
    options = ["--output", str(out), "--target", "ort", "--provider", "cuda"]
    done = CliRunner().invoke(main, ["export", str(tiny_checkpoint), *options])
    assert done.exit_code == 0, done.stderr
    assert "attention and experts in bfloat16" in done.stdout
    refused = CliRunner().invoke(main, ["generate", str(out), "--prompt-tokens", "1,2,3"])
    assert refused.exit_code == 2 and "provider cpu: not offered" in refused.stderr
