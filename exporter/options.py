"""The choices of an export: their values, what stands for none, and which go together."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import Provider, Target

WeightMode = Literal["link", "copy", "reference"]
Dense = Literal["checkpoint", "int8"]
Experts = Literal["checkpoint", "int4"]
KvDtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Options:
    """Choices that go together; see `export` for what each means."""

    target: Target
    provider: Provider
    weights: WeightMode
    dense: Dense
    experts: Experts
    kv_dtype: KvDtype

    @classmethod
    def choose(
        cls,
        target: Target,
        provider: Provider,
        weights: WeightMode | None,
        dense: Dense,
        experts: Experts,
        kv_dtype: KvDtype | None,
    ) -> Self:
        """Return the choices, with what None stands for put in its place.

        Raises InputError for a value that is not offered, and for values that do not go together.
        """
        _check_choice("target", target, Target)
        _check_choice("provider", provider, Provider)
        weights = weights or ("copy" if target == "ort" else "link")
        kv_dtype = kv_dtype or ("float32" if provider == "cpu" else "bfloat16")
        _check_choice("weights", weights, WeightMode)
        _check_choice("dense", dense, Dense)
        _check_choice("experts", experts, Experts)
        _check_choice("kv_dtype", kv_dtype, KvDtype)
        options = cls(target, provider, weights, dense, experts, kv_dtype)
        if target == "ort":
            _check_ort(options)
        else:
            _check_portable(options)
        return options


def _check_portable(options: Options) -> None:
    """Refuse options that do not go with target portable, each with what to do instead."""
    if options.dense == "int8" and options.weights == "reference":
        raise InputError(
            "--dense int8 writes weights into the package, and --weights reference makes ONNX "
            "Runtime look for all of "
            "them below the checkpoint's folder: choose --weights link or copy"
        )
    if options.experts != "checkpoint":
        raise InputError(
            f"--experts {options.experts}: found with --target {options.target}, which runs the "
            "checkpoint's own: "
            "leave --experts out, or choose --target ort"
        )
    if options.provider != "cpu":
        raise InputError(
            f"--provider {options.provider}: found with --target {options.target}, which runs on "
            "every provider: "
            "leave --provider out"
        )


def _check_ort(options: Options) -> None:
    """Refuse options that do not go with target ort, each with what to do instead."""
    if options.weights != "copy":
        raise InputError(
            f"--weights {options.weights}: found with --target ort, whose weights are always a "
            "file of the package's "
            "own: leave --weights out"
        )
    if options.dense != "checkpoint":
        raise InputError(
            f"--dense {options.dense}: found with --target ort, expected checkpoint; export with "
            "--target portable"
        )
    if options.provider == "cuda" and options.experts != "checkpoint":
        raise InputError(
            f"--experts {options.experts}: found with --provider cuda, which runs the checkpoint's "
            "own MXFP4: leave "
            "--experts out"
        )
    if options.provider == "cuda" and options.kv_dtype != "bfloat16":
        raise InputError(
            f"--kv-dtype {options.kv_dtype}: found with --target ort --provider cuda, expected "
            "bfloat16 (what "
            "attention computes in there): leave --kv-dtype out"
        )
    if options.provider == "cpu" and options.kv_dtype == "bfloat16":
        raise InputError(
            "--kv-dtype bfloat16: found with --target ort, expected float32 or float16 "
            "(GroupQueryAttention has no "
            "bfloat16 on the CPU)"
        )


def _check_choice(name: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"{name}: found {value!r}, expected one of {', '.join(allowed)}")
