"""The options of an export: what stands for None, which go together, and for which checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from gptoss_onnx.choices import (
    ExpertForm,
    KvDtype,
    OnnxRuntime,
    Options,
    ProjectionForm,
    Provider,
    Target,
    WeightMode,
    check_choice,
)
from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.ort.refused import not_lowered
from gptoss_onnx.exporter.separate_experts import separate_parameters
from gptoss_onnx.manifest import Stage
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig

MXFP4 = "hf-mxfp4"
# What attention and experts read in bfloat16 on CUDA.
IN_BFLOAT16 = ("self_attn.sinks", "experts.gate_up_proj_bias", "experts.down_proj_bias")


@dataclass(frozen=True)
class ExportOptions(Options):
    """Options that go together; see `export` for what each means."""

    @classmethod
    def choose(
        cls,
        target: Target,
        provider: Provider,
        weights: WeightMode | None,
        dense: ProjectionForm | None,
        experts: ExpertForm,
        kv_dtype: KvDtype | None,
        onnxruntime: OnnxRuntime | None,
    ) -> Self:
        """Return the options, with what None stands for put in its place.

        Raises InputError for a value that is not offered, and for values that do not go together.
        """
        as_mxfp4 = experts in ("checkpoint", "mxfp4")
        newest = target == "ort" and provider == "cpu" and as_mxfp4
        onnxruntime = onnxruntime or ("1.32" if newest else "1.28")
        in_own_file = target == "ort" and (onnxruntime == "1.28" or not as_mxfp4)
        on_cpu = target == "ort" and provider == "cpu"
        dense = dense or ("float32" if on_cpu else "checkpoint")
        weights = weights or ("copy" if in_own_file else "link")
        kv_dtype = kv_dtype or ("bfloat16" if provider == "cuda" else "float32")
        options = cls(target, provider, weights, dense, experts, kv_dtype, onnxruntime)
        options.check()
        return options

    @classmethod
    def again(cls, recorded: Options) -> Self:
        """Return the options that a manifest has recorded; raises as `check`."""
        options = cls(**_values(recorded))
        options.check()
        return options

    @property
    def record(self) -> Options:
        """The options as the manifest records them."""
        return Options(**_values(self))

    def check(self) -> None:
        """Raise InputError for a value that is not offered, and for values that do not go
        together, with what to do instead.
        """
        check_choice("target", self.target, Target)
        check_choice("provider", self.provider, Provider)
        check_choice("weights", self.weights, WeightMode)
        check_choice("dense", self.dense, ProjectionForm)
        check_choice("experts", self.experts, ExpertForm)
        check_choice("kv_dtype", self.kv_dtype, KvDtype)
        check_choice("onnxruntime", self.onnxruntime, OnnxRuntime)
        refused = {
            "portable": self._not_with_portable,
            "ort": self._not_with_ort,
            "openvino": self._not_with_openvino,
        }[self.target]
        for message in refused():
            raise InputError(message)

    def needs_fp4(self, config: DecoderConfig) -> bool:
        """Say whether ONNX Runtime's own op multiplies MXFP4 on the CPU."""
        on_cpu = self.target == "ort" and self.provider == "cpu"
        stored = self.experts == "checkpoint" and config.layout == MXFP4
        return on_cpu and (stored or self.experts == "mxfp4")

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Raise InputError for a checkpoint that the ops of these options cannot compute."""
        for message in self._not_with(checkpoint):
            raise InputError(message)

    def _not_with_portable(self) -> Iterator[str]:
        written = [f"--dense {self.dense}"] if self.dense in ("int8", "packed") else []
        written += ["--experts mxfp4"] if self.experts == "mxfp4" else []
        if written and self.weights == "reference":
            yield (
                f"{written[0]} writes weights into the package, and --weights reference "
                "makes ONNX Runtime look for all of them below the checkpoint's folder: choose "
                "--weights link or copy"
            )
        if self.dense == "float32":
            yield (
                f"--dense float32: found with --target {self.target}, which multiplies with the "
                "checkpoint's own: leave --dense out, or choose --target ort"
            )
        if self.experts not in ("checkpoint", "mxfp4"):
            yield (
                f"--experts {self.experts}: found with --target {self.target}, which runs the "
                "checkpoint's own: leave --experts out, or choose --target ort"
            )
        if self.provider != "cpu":
            yield (
                f"--provider {self.provider}: found with --target {self.target}, which runs on "
                "every provider: leave --provider out"
            )
        if self.onnxruntime != "1.28":
            yield (
                f"--onnxruntime {self.onnxruntime}: found with --target {self.target}, which runs "
                "on 1.28 and later: leave --onnxruntime out"
            )

    def _not_with_openvino(self) -> Iterator[str]:
        yield from self._not_with_portable()
        if self.weights == "reference":
            yield (
                "--weights reference: found with --target openvino, and OpenVINO looks for weights "
                "beside the graph: choose --weights link or copy"
            )
        if self.dense == "packed":
            yield (
                "--dense packed: found with --target openvino, expected checkpoint or int8 "
                "(OpenVINO 2026.4 unpacks other numbers): leave --dense out"
            )

    def _not_with_ort(self) -> Iterator[str]:
        if self.weights == "reference":
            yield (
                "--weights reference: found with --target ort, which writes weights into the "
                "package: leave --weights out"
            )
        if self.weights == "link" and self.experts in ("int8", "int4"):
            yield (
                f"--weights link: found with --experts {self.experts}, which leaves nothing of the "
                "checkpoint's files that is worth a link: leave --weights out"
            )
        if self.weights == "link" and self.provider == "cuda":
            yield (
                "--weights link: found with --provider cuda, which needs the experts in another "
                "order: leave --weights out"
            )
        if self.provider == "cuda" and self.onnxruntime != "1.28":
            yield (
                f"--onnxruntime {self.onnxruntime}: found with --provider cuda, expected 1.28 (no "
                "later one is needed): leave --onnxruntime out"
            )
        if self.dense == "float32" and self.provider == "cuda":
            yield (
                "--dense float32: found with --provider cuda, whose projections are float32 "
                "anyway: leave --dense out"
            )
        if self.dense in ("int8", "packed"):
            yield (
                f"--dense {self.dense}: found with --target ort, expected checkpoint or float32; "
                "export with --target portable"
            )
        if self.provider == "cuda" and self.experts != "checkpoint":
            yield (
                f"--experts {self.experts}: found with --provider cuda, which runs the "
                "checkpoint's own MXFP4: leave --experts out"
            )
        if self.provider == "cuda" and self.kv_dtype != "bfloat16":
            yield (
                f"--kv-dtype {self.kv_dtype}: found with --target ort --provider cuda, expected "
                "bfloat16 (what attention computes in there): leave --kv-dtype out"
            )
        if self.provider == "cpu" and self.kv_dtype == "bfloat16":
            yield (
                "--kv-dtype bfloat16: found with --target ort, expected float32 or float16 "
                "(GroupQueryAttention has no bfloat16 on the CPU)"
            )

    def _not_with(self, checkpoint: Checkpoint) -> Iterator[str]:
        config = checkpoint.config
        is_mxfp4 = config.layout == MXFP4
        apart = separate_parameters(checkpoint)
        own = [
            entry
            for entry in checkpoint.parameters.values()
            if entry.computed or (entry.view is None and entry.name not in apart)
        ]
        if self.weights == "reference" and own:
            yield (
                "--weights reference: found FP8, GGUF, experts of another kind, or adapters, which "
                "the package holds in files of its own, and ONNX Runtime looks for all weights "
                "below the checkpoint's folder: choose --weights link or copy"
            )
        if self.target == "ort":
            yield from not_lowered(config)
        if self.provider == "cuda" and not is_mxfp4:
            yield (
                "--provider cuda: found no MXFP4 experts, expected them (the only ones that this "
                "export has for CUDA): export with --provider cpu"
            )
        if checkpoint.products and (self.dense == "int8" or self.provider == "cuda"):
            option = "--provider cuda" if self.provider == "cuda" else "--dense int8"
            yield (
                f"--adapter-mode runtime: found with {option}, which takes adapters in the weights "
                "alone: leave --adapter-mode out"
            )
        if self.provider == "cuda" and config != checkpoint.base_config:
            yield (
                "--provider cuda: found an adapter of the experts, whose layers are then bfloat16, "
                "expected MXFP4 in all: export with --provider cpu"
            )
        if self.experts == "mxfp4":
            yield from _not_quantized(config)
        if self.experts in ("int8", "int4") and not is_mxfp4:
            yield (
                f"--experts {self.experts}: found no MXFP4 experts, expected them (what it is made "
                "for): leave --experts out"
            )
        if self.needs_fp4(config) and self.onnxruntime == "1.28":
            instead = (
                ""
                if self.experts == "mxfp4"
                else ("add --experts int8, which holds the same values, or ")
            )
            yield (
                "--onnxruntime 1.28: found MXFP4 experts, which ONNX Runtime runs on the CPU from "
                f"1.32 on: {instead}leave --onnxruntime out"
            )
        for name, tensor in checkpoint.tensors.items() if self.provider == "cuda" else ():
            if name.endswith(IN_BFLOAT16) and tensor.dtype != "BF16":
                yield (
                    f"--provider cuda: {name}: found {tensor.dtype}, expected BF16 (what attention "
                    "and experts compute in there): export with --provider cpu"
                )


def _not_quantized(config: DecoderConfig) -> Iterator[str]:
    """Yield why the experts cannot become MXFP4."""
    parts = [layer.feed_forward for layer in config.layers]
    experts = [part for part in parts if isinstance(part, ExpertsConfig)]
    if not experts:
        yield "--experts mxfp4: found no experts, expected some: leave --experts out"
    elif all(part.storage == "mxfp4" for part in experts):
        yield (
            "--experts mxfp4: found experts that are MXFP4 already, expected dense ones: leave "
            "--experts out"
        )
    for size in {size for part in experts for size in (config.hidden_size, part.width)}:
        if size % BLOCK:
            yield (
                f"--experts mxfp4: found experts of width {size}, expected a multiple of {BLOCK}, "
                "the block of MXFP4: leave --experts out"
            )


def choose_stage(first: int, end: int, total: int) -> Stage | None:
    """Return the stage of layers `first` to `end` − 1 of `total`, None if these are all.

    Raises InputError where there are no such layers.
    """
    if not 0 <= first < end <= total:
        raise InputError(
            f"--layers {first}:{end}: expected A:B with 0 ≤ A < B ≤ {total}, the layers of the "
            "checkpoint; B is not exported"
        )
    return None if end - first == total else Stage(first, end, total)


def _values(options: Options) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(options)}
