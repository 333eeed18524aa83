"""The manifest of a package that an export has made."""

from collections import Counter

import onnx
import onnx_ir as ir

from gptoss_onnx.custom_ops.bodies import OPSET_VERSION
from gptoss_onnx.custom_ops.linear_int8 import BLOCK as INT8_BLOCK
from gptoss_onnx.custom_ops.mxfp4 import BLOCK as MXFP4_BLOCK
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.json_text import printable
from gptoss_onnx.manifest import (
    Adapter,
    CacheLayer,
    Manifest,
    OpUse,
    RoundedWeights,
    Stage,
    TensorError,
    TensorSpec,
    Weights,
)
from gptoss_onnx.offered import not_offered
from gptoss_onnx.package import EXPERTS_FILE, GRAPH_FILE, INT8_FILE, ORT_WEIGHTS
from gptoss_onnx.reference import Checkpoint, DecoderConfig
from gptoss_onnx.reference.adapters.settings import AdapterSettings
from gptoss_onnx.reference.experts_mxfp4 import EXPERTS_MXFP4


def describe(
    checkpoint: Checkpoint,
    proto: onnx.ModelProto,
    options: ExportOptions,
    *,
    weights: Weights,
    rounded: tuple[RoundedWeights, ...],
    lossy: tuple[str, ...],
    tokenizer_files: tuple[str, ...],
    eos_tokens: tuple[int, ...],
    stage: Stage | None = None,
) -> Manifest:
    """Return the manifest of an export.

    Args:
        checkpoint: what was exported.
        proto: the graph as it is written.
        options: of the export.
        weights: the record of the graph's weights.
        rounded: the weights that it has rounded.
        lossy: what was lost on the way.
        tokenizer_files: names of the side files in the package.
        eos_tokens: ids that end a text.
        stage: which layers were exported, None for all.
    """
    config = checkpoint.config
    layers = range(config.num_layers) if stage is None else range(stage.first, stage.end)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    ops = Counter((node.domain, node.op_type) for node in proto.graph.node if node.domain)
    return Manifest(
        exporter=f"{proto.producer_name} {proto.producer_version}",
        target=options.target,
        onnxruntime=least_onnxruntime(options, config),
        model=dict(checkpoint.settings),
        vocab_size=config.vocab_size,
        longest=config.longest,
        eos_tokens=eos_tokens,
        graph=GRAPH_FILE,
        opset=OPSET_VERSION,
        inputs=tuple(_spec(value) for value in proto.graph.input),
        outputs=tuple(_spec(value) for value in proto.graph.output),
        kv_dtype=options.kv_dtype,
        cache=tuple(_cache_layer(config, layer) for layer in layers),
        ops=tuple(
            OpUse(domain, name, versions[domain], count)
            for (domain, name), count in sorted(ops.items())
        ),
        weights=weights,
        rounded=rounded,
        tokenizer_files=tokenizer_files,
        lossy=lossy,
        unsupported=not_offered(
            options.target, options.provider, options.onnxruntime, options.experts
        ),
        options=options.record,
        stage=stage,
        adapters=adapters_of(checkpoint),
    )


def adapters_of(checkpoint: Checkpoint) -> tuple[Adapter, ...]:
    """Return the record of a checkpoint's adapters, whose files are read for it."""
    return tuple(
        Adapter(
            name=printable(adapter.name),
            mode="runtime" if checkpoint.products else "merge",
            base=AdapterSettings.read(adapter.settings, adapter.settings_path).base,
            config_sha256=adapter.settings_sha256,
            weights_sha256=adapter.weights_sha256(),
        )
        for adapter in checkpoint.adapters
    )


def least_onnxruntime(options: ExportOptions, config: DecoderConfig) -> str:
    """Return the least ONNX Runtime that runs the graph. GroupQueryAttention keeps a window by
    itself (`sliding_window_cache`) since 1.29.
    """
    keeps_window = options.target == "ort" and any(config.windows)
    return "1.29" if keeps_window and options.onnxruntime == "1.28" else options.onnxruntime


def rounded_by(
    options: ExportOptions, errors: tuple[TensorError, ...] = ()
) -> tuple[RoundedWeights, ...]:
    """Return the weights that an export with these options rounds; `errors` are those of MXFP4."""
    found = []
    if options.dense == "int8":
        found.append(RoundedWeights("dense-int8", INT8_FILE, INT8_BLOCK))
    if options.experts == "int4":
        found.append(RoundedWeights("experts-int4", ORT_WEIGHTS, MXFP4_BLOCK))
    if options.experts == "mxfp4":
        file = ORT_WEIGHTS if options.target == "ort" else EXPERTS_FILE
        found.append(RoundedWeights("experts-mxfp4", file, MXFP4_BLOCK, errors))
    return tuple(found)


def lost_by(rounded: tuple[RoundedWeights, ...]) -> tuple[str, ...]:
    """Return what is lost by rounding of which only the weights tell whether it changes them."""
    return (EXPERTS_MXFP4,) if any(_is_lossy(entry) for entry in rounded) else ()


def _is_lossy(entry: RoundedWeights) -> bool:
    return entry.kind == "experts-mxfp4" and not entry.exact


def _cache_layer(config: DecoderConfig, layer: int) -> CacheLayer:
    past, present = f"past_key_values.{layer}", f"present.{layer}"
    part = config.layers[layer].attention
    return CacheLayer(
        window=part.window,
        sink_tokens=part.sink_tokens,
        kv_heads=part.kv_heads,
        head_dim=part.head_dim,
        past_key=f"{past}.key",
        past_value=f"{past}.value",
        present_key=f"{present}.key",
        present_value=f"{present}.value",
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = ir.DataType(tensor.elem_type).name.lower()
    names = {"float": "float32"}
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(value.name, names.get(dtype, dtype), shape)
