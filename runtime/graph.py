"""Load a package's graph into ONNX Runtime with the right options, and check it against the
manifest.
"""

from types import ModuleType
from typing import Any

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.environment import onnxruntime_errors
from gptoss_onnx.runtime.kernels import KernelChoice
from gptoss_onnx.runtime.target import contract_of, result_width


def load_graph(
    onnxruntime: ModuleType,
    package: Package,
    choice: KernelChoice,
    activations: str,
    providers: list[tuple[str, dict[str, str]]],
    threads: int | None,
    model: bytes | None = None,
) -> Any:
    """Return an `onnxruntime.InferenceSession` of the package's graph.

    `model` takes the place of the graph's file: the same graph with more outputs, to look inside.

    Raises PackageError when ONNX Runtime cannot load the graph, RuntimeUnavailable when it refuses
    the library.
    """
    options = onnxruntime.SessionOptions()
    # errors; what matters of its warnings is checked and raised here
    options.log_severity_level = 3
    options.inter_op_num_threads = 1  # the graph is one chain of large ops
    if threads is not None:
        options.intra_op_num_threads = threads
    if model is not None or package.manifest.weights.root is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(package.weights_root)
        )
    if choice.kernels == "contrib" and activations == "exact" and package.manifest.runs_on("cpu"):
        # QMoE multiplies int8 activations by weights that it prepacked, and float32 ones by those
        # it did not. Nor are weights copied then: they stay in the mapped file. On CUDA it has to
        # prepack its MXFP4.
        options.add_session_config_entry("session.disable_prepacking", "1")
    if choice.library is not None:
        # Before registering: the library reads the entry while it registers.
        options.add_session_config_entry("gptoss.activations", activations)
        with onnxruntime_errors(
            onnxruntime, RuntimeUnavailable, f"{choice.library}: ONNX Runtime refuses it"
        ):
            options.register_custom_ops_library(str(choice.library))
    with onnxruntime_errors(
        onnxruntime, PackageError, f"{package.graph}: ONNX Runtime cannot load it"
    ):
        source = str(package.graph) if model is None else model
        return onnxruntime.InferenceSession(source, options, providers=providers)


def check_interface(graph: Any, manifest: Manifest) -> None:
    """Compare the graph's inputs and outputs with the manifest and the contract; raises
    PackageError.
    """
    caches, contract = manifest.cache, contract_of(manifest)
    inputs = {
        *(name for name in contract.call_inputs if name not in contract.optional_inputs),
        *(layer.past_key for layer in caches),
        *(layer.past_value for layer in caches),
    }
    outputs = {
        contract.result,
        *(layer.present_key for layer in caches),
        *(layer.present_value for layer in caches),
    }
    given = {value.name for value in graph.get_inputs()}
    # Those with a default that we do not know leave everything as it is.
    defaults = {value.name for value in graph.get_overridable_initializers()}
    for what, expected, found in (
        ("inputs", inputs, given),
        ("optional inputs", contract.optional_inputs, contract.optional_inputs & defaults),
        ("outputs", outputs, {value.name for value in graph.get_outputs()}),
    ):
        if expected != found:
            raise PackageError(
                f"{manifest.graph}: its {what} differ from the manifest: missing "
                f"{sorted(expected - found)}, "
                f"unknown {sorted(found - expected)}; export the package again"
            )
    result, wanted = contract.result, result_width(manifest)
    width = next(value.shape[-1] for value in graph.get_outputs() if value.name == result)
    if width != wanted:
        raise PackageError(
            f"{manifest.graph}: found {result} of width {width}, expected {wanted}, as the "
            "manifest says; export the package again"
        )
