"""Packages of checkpoints with adapters, against what PEFT merges, and what is written of them."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors import safe_open

from gptoss_onnx.errors import CheckpointError, InputError, ParityError
from gptoss_onnx.exporter import export
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import ASSEMBLED
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.validation import validate
from support.architecture_judge import Case
from support.command_line import run
from support.peft_adapters import Base
from support.tolerances import MXFP4_ROUNDING

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["gate_up_proj", "down_proj"]
LOSS = "MXFP4 experts"  # the case of `validate` that compares with the sums before they are rounded
Kept = tuple[Base, Path]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A Llama and an adapter of its attention and its head."""
    root = tmp_path_factory.mktemp("llama")
    base = Base.write("llama", {"num_hidden_layers": 2}, root / "base")
    return base, base.adapter(root / "adapter", target_modules=[*ATTENTION, "lm_head"])


@pytest.fixture(scope="module")
def mxfp4(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A gpt-oss in MXFP4, and an adapter of its attention, its routers and two layers' experts."""
    root = tmp_path_factory.mktemp("mxfp4")
    base = Base.mxfp4(root / "base")
    names = [f"layers.{layer}.mlp.experts.{name}" for layer in (1, 2) for name in EXPERTS]
    settings: dict[str, Any] = {"target_parameters": ["mlp.router.weight", *names]}
    return base, base.adapter(root / "adapter", target_modules=ATTENTION, **settings)


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("model", ["llama", "mxfp4"])
def test_packages_compute_what_peft_merges(
    request: pytest.FixtureRequest, tmp_path: Path, model: str, target: Any
) -> None:
    base, adapter = request.getfixturevalue(model)
    case = Case(base.merged([adapter]))
    case.check_package(tmp_path / "package", target, "auto", [adapter])
    if target == "portable":
        case.check_package(tmp_path / "package", target, "portable", [adapter])
    report = validate(tmp_path / "package", base.folder, adapters=[adapter])
    assert report.passed, report.table()


@pytest.mark.parametrize("model_type", ["gpt_oss", "mixtral", "gpt2"])
def test_other_architectures(tmp_path: Path, model_type: str) -> None:
    base = Base.write(model_type, {}, tmp_path / "base")
    targets = ["c_attn", "c_proj"] if model_type == "gpt2" else ATTENTION
    names = [] if model_type == "gpt2" else [f"layers.1.mlp.experts.{name}" for name in EXPERTS]
    adapter = base.adapter(
        tmp_path / "adapter", target_modules=targets, target_parameters=names or None
    )
    case = Case(base.merged([adapter]))
    case.check_package(tmp_path / "package", "portable", "auto", [adapter])
    report = validate(tmp_path / "package", base.folder, adapters=[adapter])
    assert report.passed, report.table()


def test_only_what_is_touched_is_written_and_the_base_stays_linked(
    mxfp4: Kept, tmp_path: Path
) -> None:
    base, adapter = mxfp4
    package = export(base.folder, tmp_path / "package", adapters=[adapter])
    linked = package.folder / "model.safetensors"
    assert linked.samefile(base.folder / "model.safetensors")
    with safe_open(package.folder / ASSEMBLED, "pt") as file:
        written = set(file.keys())
    experts = {f"model.layers.{n}.mlp.experts.{name}" for n in (1, 2) for name in EXPERTS}
    others = [*(f"self_attn.{name}.weight" for name in ATTENTION), "mlp.router.weight"]
    rest = {f"model.layers.{n}.{name}" for n in range(4) for name in others}
    assert written == experts | rest
    manifest = Manifest.read(package.folder)
    assert {use.name: use.count for use in manifest.ops}["MoEDispatchMXFP4"] == 2
    assert not manifest.weights.bit_identical
    assert manifest.lossy == ("an adapter's products added in float32, sums rounded to bfloat16",)
    (record,) = manifest.adapters
    assert record.name == "adapter"


def test_of_experts_that_lie_apart_only_the_touched_ones_are_written(tmp_path: Path) -> None:
    base = Base.write("mixtral", {"num_hidden_layers": 2}, tmp_path / "base")
    adapter = base.adapter(
        tmp_path / "adapter",
        target_modules=["q_proj"],
        target_parameters=["layers.1.mlp.experts.down_proj"],
    )
    package = export(base.folder, tmp_path / "package", adapters=[adapter])
    with safe_open(package.folder / ASSEMBLED, "pt") as file:
        written = set(file.keys())
    experts = {f"model.layers.1.block_sparse_moe.experts.{n}.w2.weight" for n in range(8)}
    assert written == experts | {f"model.layers.{n}.self_attn.q_proj.weight" for n in range(2)}
    Case(base.merged([adapter])).check_package(package.folder, "portable", "auto")
    graph = onnx.load(package.graph, load_external_data=False).graph
    kinds = {node.op_type for node in graph.node if node.op_type.startswith("MoE")}
    assert kinds == {"MoEDispatchSeparate"}


def test_a_copy_of_experts_that_lie_apart_holds_them_stacked(tmp_path: Path) -> None:
    base = Base.write("mixtral", {"num_hidden_layers": 2}, tmp_path / "base")
    adapter = base.adapter(tmp_path / "adapter", target_modules=["q_proj"])
    package = export(base.folder, tmp_path / "package", adapters=[adapter], weights="copy")
    assert [path.name for path in package.folder.glob("*.safetensors")] == [ASSEMBLED]
    Case(base.merged([adapter])).check_package(package.folder, "portable", "auto")


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("model_type", ["mxfp4", "mixtral"])
def test_experts_with_an_adapter_become_mxfp4(
    request: pytest.FixtureRequest, tmp_path: Path, model_type: str, target: Any
) -> None:
    """All of Mixtral's, and those of gpt-oss that were MXFP4 before the adapter was added."""
    if model_type == "mxfp4":
        base, adapter = request.getfixturevalue("mxfp4")
    else:
        base = Base.write("mixtral", {"num_hidden_layers": 2}, tmp_path / "base")
        names = [f"layers.1.mlp.experts.{name}" for name in EXPERTS]
        adapter = base.adapter(
            tmp_path / "adapter", target_modules=ATTENTION, target_parameters=names
        )
    options: dict[str, Any] = {"adapters": [adapter], "experts": "mxfp4", "target": target}
    package = export(base.folder, tmp_path / "package", **options)
    (rounded,) = Manifest.read(package.folder).rounded
    layers = (1, 2) if model_type == "mxfp4" else (0, 1)
    names = {f"model.layers.{n}.mlp.experts.{name}" for n in layers for name in EXPERTS}
    assert {error.name for error in rounded.errors} == names
    assert all(0 < error.relative_rms < MXFP4_ROUNDING for error in rounded.errors)
    assert not package.manifest.has_op("MoEDispatch")
    report = validate(package.folder, base.folder, adapters=[adapter])
    assert set(report.failed()) <= {LOSS}, report.table()


def test_several_adapters_are_added_in_their_order(llama: Kept, tmp_path: Path) -> None:
    base, first = llama
    second = base.adapter(
        tmp_path / "second", seed=1, target_modules=["q_proj", "up_proj"], bias="lora_only"
    )
    case = Case(base.merged([first, second]))
    case.check_package(tmp_path / "package", "portable", "auto", [first, second])
    names = [adapter.name for adapter in Manifest.read(tmp_path / "package").adapters]
    assert names == ["adapter", "second"]
    with pytest.raises(ParityError, match=r"found sha256 .*expected .*the adapter adapter that"):
        validate(tmp_path / "package", base.folder, adapters=[second, first])


def test_validate_asks_for_the_same_adapters(llama: Kept, tmp_path: Path) -> None:
    base, adapter = llama
    export(base.folder, tmp_path / "package", adapters=[adapter])
    with pytest.raises(
        ParityError, match=r"found 0 adapters .*: adapter; name each with --adapter"
    ):
        validate(tmp_path / "package", base.folder)
    export(base.folder, tmp_path / "plain")
    with pytest.raises(ParityError, match=r"found 1 adapter .*: none"):
        validate(tmp_path / "plain", base.folder, adapters=[adapter])


@pytest.mark.parametrize("dense", ["int8", "packed"])
def test_projections_with_an_adapter_take_other_forms(
    llama: Kept, tmp_path: Path, dense: Any
) -> None:
    base, adapter = llama
    export(base.folder, tmp_path / "package", adapters=[adapter], dense=dense)
    report = validate(tmp_path / "package", base.folder, adapters=[adapter])
    assert report.passed, report.table()


def test_a_reference_to_the_checkpoint_is_refused(llama: Kept, tmp_path: Path) -> None:
    base, adapter = llama
    with pytest.raises(InputError, match=r"--weights reference: found .*adapters"):
        export(base.folder, tmp_path / "package", adapters=[adapter], weights="reference")
    assert not list(tmp_path.iterdir())


def test_a_copy_holds_every_weight_once(llama: Kept, tmp_path: Path) -> None:
    base, adapter = llama
    package = export(base.folder, tmp_path / "package", adapters=[adapter], weights="copy")
    assert [path.name for path in package.folder.glob("*.safetensors")] == [ASSEMBLED]
    with (
        safe_open(package.folder / ASSEMBLED, "pt") as file,
        open_checkpoint(base.folder) as opened,
    ):
        assert set(file.keys()) == set(opened.named)


def test_the_command_line(llama: Kept, tmp_path: Path) -> None:
    base, adapter = llama
    package = str(tmp_path / "package")
    done = run("export", str(base.folder), "--adapter", str(adapter), "--output", package)
    assert done.exit_code == 0, done.output
    assert "adapter  adapter" in done.output
    missing = run("validate", package, "--reference", str(base.folder))
    assert missing.exit_code == 2
    options = ["--reference", str(base.folder), "--adapter", str(adapter)]
    judged = run("validate", package, *options)
    assert judged.exit_code == 0, judged.output


RUNTIME: dict[str, Any] = {
    "target_modules": [*ATTENTION, "up_proj", "lm_head"],
    "alpha_pattern": {"up_proj": 4},
}


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_an_adapter_beside_the_weights_computes_what_peft_does(tmp_path: Path, target: Any) -> None:
    base = Base.write("llama", {}, tmp_path / "base")
    adapter = base.adapter(tmp_path / "adapter", **RUNTIME)
    case = Case(base.loaded(adapter))
    package = tmp_path / "package"
    export(base.folder, package, target=target, adapters=[adapter], adapter_mode="runtime")
    case.check_package(package, target, "auto")
    if target == "portable":
        case.check_package(package, target, "portable")
        linked = (package / "model.safetensors", package / "adapter.safetensors")
        origins = (base.folder / "model.safetensors", adapter / "adapter_model.safetensors")
        for ours, theirs in zip(linked, origins, strict=True):
            assert ours.samefile(theirs)
        assert Manifest.read(package).weights.bit_identical
    report = validate(package, base.folder, adapters=[adapter])
    assert report.passed, report.table()


def test_layers_of_other_scales_keep_theirs_beside_the_weights(tmp_path: Path) -> None:
    base = Base.write("llama", {"num_hidden_layers": 6}, tmp_path / "base")
    scales = {f"layers.{layer}.self_attn.q_proj": 2 * layer + 1 for layer in range(6)}
    adapter = base.adapter(tmp_path / "adapter", target_modules=["q_proj"], alpha_pattern=scales)
    export(base.folder, tmp_path / "package", adapters=[adapter], adapter_mode="runtime")
    Case(base.loaded(adapter)).check_package(tmp_path / "package", "portable", "auto")


def test_mxfp4_stays_with_an_adapter_beside_it(mxfp4: Kept, tmp_path: Path) -> None:
    base, _ = mxfp4
    settings: dict[str, Any] = {"target_parameters": ["mlp.router.weight"]}
    adapter = base.adapter(tmp_path / "adapter", target_modules=ATTENTION, **settings)
    package = tmp_path / "package"
    options: dict[str, Any] = {"adapters": [adapter], "adapter_mode": "runtime"}
    export(base.folder, package, weights="copy", **options)
    Case(base.loaded(adapter)).check_package(package, "portable", "auto")
    report = validate(package, base.folder, adapters=[adapter])
    assert report.passed, report.table()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_modules": [], "target_parameters": EXPERTS}, "found what is no projection"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "found a bias"),
        ({"target_modules": ["q_proj"], "bias": "all"}, "found a weight or bias in full"),
        ({"target_modules": ["q_proj"], "use_dora": True}, "found DoRA"),
        ({"target_modules": ["embed_tokens"]}, "found what is no projection"),
    ],
)
def test_what_cannot_stay_beside_the_weights(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    base = Base.write("gpt_oss", {"num_hidden_layers": 1}, tmp_path / "base")
    adapter = base.adapter(tmp_path / "adapter", **settings)
    with pytest.raises(CheckpointError, match=f"{words}.*leave --adapter-mode runtime out"):
        export(base.folder, tmp_path / "p", adapters=[adapter], adapter_mode="runtime")
    assert not (tmp_path / "p").exists()


def test_one_adapter_alone_stays_beside_the_weights(llama: Kept, tmp_path: Path) -> None:
    base, adapter = llama
    with pytest.raises(CheckpointError, match="found 2 adapters, expected one"):
        export(base.folder, tmp_path / "p", adapters=[adapter] * 2, adapter_mode="runtime")
    with pytest.raises(InputError, match="--adapter-mode runtime: found with --dense int8"):
        export(
            base.folder, tmp_path / "p", adapters=[adapter], adapter_mode="runtime", dense="int8"
        )
