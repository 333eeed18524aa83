"""The two sides of a parity run: a package, and the reference with the weights that the package
has.
"""

from pathlib import Path

from gptoss_onnx.checkpoint.finite import bytes_checked, first_non_finite
from gptoss_onnx.errors import CheckpointError, PackageError, ParityError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, GptOss
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.dense_int8 import use_dense_int8
from gptoss_onnx.reference.experts_int4 import EXPERTS_INT4, use_experts_int4
from gptoss_onnx.runtime import PackageFolder


def check_pair(package: PackageFolder, checkpoint: Checkpoint, progress: Progress) -> None:
    """Refuse a package of another model, and a reference that cannot be judged against.

    Reads all weights of the reference but MXFP4 blocks; `progress` hears of the bytes.
    """
    ours, theirs = dict(package.manifest.model), dict(checkpoint.settings)
    try:
        _, _, config = read_config(ours, StoredNames(checkpoint.tensors), "manifest.json: model")
    except CheckpointError as error:
        raise PackageError(f"{package.folder}: {error}; export the package again") from error
    if config != checkpoint.config:
        keys = ours.keys() | theirs.keys()
        differing = sorted(key for key in keys if ours.get(key) != theirs.get(key))
        key = differing[0]
        raise ParityError(
            f"{package.folder}: was not exported from {checkpoint.folder}: {', '.join(differing)} "
            "differ "
            f"({key}: {ours.get(key)} and {theirs.get(key)})"
        )
    progress.begin("checking that the weights are finite", bytes_checked(checkpoint))
    broken = first_non_finite(checkpoint, progress)
    if broken is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: {broken}; no parity can be judged on weights that are not finite"
        )


def reference_model(package: PackageFolder, checkpoint: Checkpoint) -> GptOss:
    """Return the reference with the weights the package has: rounded ones where the export made
    such.

    Raises PackageError where the package's own weights are not those of such a model.
    """
    manifest, model = package.manifest, GptOss.from_checkpoint(checkpoint)
    if manifest.has_op("LinearInt8"):
        use_dense_int8(model, _own_weights(package, "int8"))
    if EXPERTS_INT4 in manifest.lossy:
        use_experts_int4(model, _own_weights(package, "int4"))
    return model


def _own_weights(package: PackageFolder, what: str) -> Path:
    """Return the one file of weights that the export has computed."""
    files = [entry for entry in package.manifest.weights.files if entry.origin == "export"]
    if len(files) != 1:
        raise PackageError(
            f"{package.folder}: found {len(files)} weight files of origin export, expected one "
            f"with the {what} "
            "weights; export the package again"
        )
    return package.weight_path(files[0])
