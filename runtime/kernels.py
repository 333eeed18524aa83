"""Choose which kernels run a graph: for `ai.gptoss` ops the native library's or the bodies in the
graph, for all others ONNX Runtime's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.runtime.arguments import shown
from gptoss_onnx.runtime.target import RunningKernels, contract_of


@dataclass(frozen=True)
class KernelChoice:
    """Which kernels a session runs, the library to register for them, and why."""

    kernels: RunningKernels
    library: Path | None
    reason: str


def choose_kernels(
    manifest: Manifest, kernels: str, activations: str, provider: str
) -> KernelChoice:
    """Decide between `native` and `portable`; `auto` takes native where every op of the graph has a
    kernel.

    A package of target `ort` has no choice: ONNX Runtime's own kernels run it, `contrib`.

    Raises InputError for unknown names, and RuntimeUnavailable if native kernels are needed (asked
    for, or because `activations` is not `exact`) and are not available, or if the library refuses
    to load.
    """
    for name, value, known in (
        ("kernels", kernels, get_args(Kernels)),
        ("activations", activations, get_args(Activations)),
    ):
        if not isinstance(value, str) or value not in known:
            raise InputError(f"{name}: found {shown(value)}, expected one of {', '.join(known)}")
    if contract_of(manifest).kernels == ("contrib",):
        return _contrib(manifest, kernels, activations, provider)
    if kernels == "portable":
        if activations != "exact":
            raise RuntimeUnavailable(
                f"activations {activations}: only the native kernels have them; found kernels "
                "portable, expected native or auto"
            )
        return KernelChoice("portable", None, "asked for")
    choice = _native(manifest, provider)
    if isinstance(choice, KernelChoice):
        return choice
    if kernels == "native":
        raise RuntimeUnavailable(f"native kernels: {choice}")
    if activations != "exact":
        raise RuntimeUnavailable(f"activations {activations} need the native kernels: {choice}")
    return KernelChoice("portable", None, choice)


def _contrib(manifest: Manifest, kernels: str, activations: str, provider: str) -> KernelChoice:
    """Return the choice for target `ort`, unless something else is asked for."""
    on_cpu = manifest.runs_on("cpu")
    for name, value, offered, instead in (
        (
            "provider",
            provider,
            ("cpu",) if on_cpu else ("cuda",),
            f"--target ort --provider {provider}",
        ),
        ("kernels", kernels, ("auto",), "--target portable"),
        (
            "activations",
            activations,
            tuple(n for n in get_args(Activations) if manifest.offers(f"activations {n}")),
            "--target portable",
        ),
    ):
        if value not in offered:
            raise RuntimeUnavailable(
                f"{name} {value}: not offered by a package of target "
                f"ort{'' if on_cpu else ' for cuda'}, expected "
                f"{' or '.join(offered)}; export with {instead} for that"
            )
    return KernelChoice("contrib", None, "ONNX Runtime's own, for target ort")


def _native(manifest: Manifest, provider: str) -> KernelChoice | str:
    """Return the native choice, or the reason why native kernels cannot run the graph."""
    from gptoss_onnx.custom_ops.library import library_info, library_path

    if "native" not in contract_of(manifest).kernels:
        return f"target {manifest.target} has none of their ops; export with --target portable"
    if provider != "cpu":
        return f"they run on the CPU only, and the provider is {provider}"
    if library_path() is None:
        return (
            "the library is not built; reinstall with a C++17 compiler and GPTOSS_SKIP_NATIVE unset"
        )
    library = library_info()
    ops = {use.name for use in manifest.ops if use.domain == DOMAIN}
    missing = sorted(ops - library.kernels)
    if missing:
        return (
            f"{library.path.name} {library.version} has no kernel for {', '.join(missing)} "
            f"(it has {', '.join(sorted(library.kernels)) or 'none'}); upgrade gptoss-onnx or run "
            "portable"
        )
    return KernelChoice(
        "native", library.path, f"{library.path.name} {library.version}, {library.cpu_level}"
    )
