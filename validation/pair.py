"""The two sides of a parity run: a package, and the reference with the weights that the package
has.
"""

from gptoss_onnx.checkpoint.finite import bytes_checked, first_non_finite
from gptoss_onnx.errors import CheckpointError, PackageError, ParityError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, Decoder
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.rounded import apply
from gptoss_onnx.runtime import Package


def check_pair(package: Package, checkpoint: Checkpoint, progress: Progress) -> None:
    """Refuse a package of another model, and a reference that cannot be judged against: see
    `check_reference`.
    """
    ours, theirs = dict(package.manifest.model), dict(checkpoint.settings)
    try:
        names = StoredNames(checkpoint.tensors.keys() | checkpoint.named.keys())
        _, _, config = read_config(ours, names, "manifest.json: model")
    except CheckpointError as error:
        raise PackageError(f"{package.folder}: {error}; export the package again") from error
    if config != checkpoint.config:
        keys = ours.keys() | theirs.keys()
        differing = sorted(key for key in keys if ours.get(key) != theirs.get(key))
        if "model_type" in differing:  # which explains all others
            differing = ["model_type"]
        key = differing[0]
        verb = "differ" if len(differing) > 1 else "differs"
        raise ParityError(
            f"{package.folder}: was not exported from {checkpoint.folder}: {', '.join(differing)} "
            f"{verb} ({key}: {ours.get(key)} and {theirs.get(key)})"
        )
    check_reference(checkpoint, progress)


def check_reference(checkpoint: Checkpoint, progress: Progress) -> None:
    """Refuse a reference that cannot be judged against; raises CheckpointError.

    Reads all its weights but MXFP4 blocks; `progress` hears of the bytes.
    """
    progress.begin("checking that the weights are finite", bytes_checked(checkpoint))
    broken = first_non_finite(checkpoint, progress)
    if broken is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: {broken}; no parity can be judged on weights that are not finite"
        )


def reference_model(package: Package, checkpoint: Checkpoint, layers: int | None = None) -> Decoder:
    """Return the reference with the weights that the package has, of its first `layers` alone or
    of all.

    Raises PackageError if the package's rounded weights are not those of such a model.
    """
    model = Decoder.from_checkpoint(checkpoint, layers=layers)
    model = apply(model, package.folder, package.manifest.rounded)
    if layers is not None:
        model.keep_layers(range(layers))
    return model
