"""The two sides of a parity run: a package, and the reference with the weights that the package
has.
"""

from collections.abc import Sequence
from pathlib import Path

from gptoss_onnx.amounts import count_of
from gptoss_onnx.checkpoint.adapter import SETTINGS, WEIGHTS
from gptoss_onnx.checkpoint.finite import bytes_checked, first_non_finite
from gptoss_onnx.errors import CheckpointError, PackageError, ParityError
from gptoss_onnx.exporter.describe import adapters_of
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, Decoder, open_checkpoint
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.rounded import apply
from gptoss_onnx.runtime import Package


def open_reference(
    package: Package, reference: str | Path, adapters: Sequence[str | Path]
) -> Checkpoint:
    """Open what a package was exported from; adapters are added in the way that it was."""
    (mode,) = {adapter.mode for adapter in package.manifest.adapters} or {"merge"}
    return open_checkpoint(reference, adapters=adapters, adapter_mode=mode)


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
    if config != checkpoint.base_config:
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
    check_adapters(package, checkpoint)
    check_reference(checkpoint, progress)


def check_adapters(package: Package, checkpoint: Checkpoint) -> None:
    """Raise ParityError unless the adapters of a reference are those that the package was exported
    with, by their files and in their order.
    """
    ours, theirs = package.manifest.adapters, adapters_of(checkpoint)
    if len(ours) != len(theirs):
        names = ", ".join(adapter.name for adapter in ours) or "none"
        raise ParityError(
            f"{package.folder}: found {count_of(len(theirs), 'adapter')} to compare it with, "
            f"expected those that it was exported with: {names}; name each with --adapter, in "
            "this order"
        )
    for mine, given, files in zip(ours, theirs, checkpoint.adapters, strict=True):
        for key, file in (("config_sha256", SETTINGS), ("weights_sha256", WEIGHTS)):
            found, expected = getattr(given, key), getattr(mine, key)
            if found != expected:
                raise ParityError(
                    f"{files.folder.path / file}: found sha256 {found[:12]}…, expected "
                    f"{expected[:12]}…, that of the adapter {mine.name} that {package.folder} was "
                    "exported with"
                )


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
