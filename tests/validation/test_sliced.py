"""`validate --slice`: the first layers of a package, run alone, and held to the reference's first
layers.
"""

import shutil
from pathlib import Path

import onnx
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import open_package
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.sliced.package import first_layers


@pytest.mark.parametrize(
    "options", [{}, {"dense": "int8"}, {"target": "ort"}, {"weights": "reference"}], ids=str
)
def test_the_first_layers_of_a_true_package_pass(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", **options)
    kernels = "auto" if options.get("target") == "ort" else "native"
    report = validate(package.folder, tiny_checkpoint, kernels=kernels, layers=2)
    assert report.passed, report.table()
    assert [entry.state for entry in report.comparisons] == ["passed", "passed"]


def test_a_slice_holds_its_layers_alone(tiny_package: Package) -> None:
    with first_layers(open_package(tiny_package.folder), 2) as sliced:
        folder = sliced.folder
        graph = onnx.load(sliced.graph, load_external_data=False).graph
        assert [entry.name for entry in graph.output][1:] == [
            f"present.{layer}.{part}" for layer in range(2) for part in ("key", "value")
        ]
        named = [*(node.name for node in graph.node), *(entry.name for entry in graph.initializer)]
        assert not any("layers.2." in name for name in named)
        assert any("layers.1." in name for name in named)
        assert open_package(folder).manifest == sliced.manifest
    assert not folder.exists()


@pytest.mark.parametrize(("layer", "passed"), [(1, False), (3, True)])
def test_a_fault_is_seen_where_it_is_run(
    tiny_package: Package, tiny_checkpoint: Path, tmp_path: Path, layer: int, passed: bool
) -> None:
    """The graph of all layers is compared nevertheless."""
    folder = shutil.copytree(tiny_package.folder, tmp_path / "package")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == "MoEDispatchMXFP4"]
    next(entry for entry in nodes[layer].attribute if entry.name == "alpha").f = 1.9
    onnx.save(model, folder / "model.onnx")
    report = validate(folder, tiny_checkpoint, kernels="native", layers=2)
    assert (report.cell("prefill").state == "passed") is passed
    (found,) = report.comparisons[0].findings
    assert f"layers.{layer} MoEDispatchMXFP4 alpha" in str(found)


@pytest.mark.parametrize("layers", [0, 99])
def test_other_numbers_of_layers_are_refused(
    tiny_package: Package, tiny_checkpoint: Path, layers: int
) -> None:
    with pytest.raises(InputError, match=rf"slice: found {layers}, expected 1 to 4"):
        validate(tiny_package.folder, tiny_checkpoint, layers=layers)


def test_other_runtimes_run_whole_packages(tiny_package: Package, tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="slice: found with other runtimes or CPU levels"):
        validate(tiny_package.folder, tiny_checkpoint, layers=1, cpu_levels=("scalar",))
