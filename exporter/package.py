"""`export`: from a checkpoint to a package folder, whole or not at all."""

import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir
import torch

from gptoss_onnx.custom_ops.bodies import OPSET_VERSION
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.check import check_graph
from gptoss_onnx.exporter.dense_int8 import convert_dense
from gptoss_onnx.exporter.genai_config import write_genai_config
from gptoss_onnx.exporter.golden import write_golden
from gptoss_onnx.exporter.ort_experts import Experts
from gptoss_onnx.exporter.ort_lowering import (
    ORT_WEIGHTS,
    check_cuda_checkpoint,
    check_int4_checkpoint,
    check_ort_config,
    lower_to_ort,
)
from gptoss_onnx.exporter.staging import check_output, staged_folder
from gptoss_onnx.exporter.tidy import tidy
from gptoss_onnx.exporter.trace import trace
from gptoss_onnx.exporter.weights import (
    WeightMode,
    attach_weights,
    describe_own_weights,
    describe_weights,
    place_weights,
)
from gptoss_onnx.manifest import (
    NOT_OFFERED,
    NOT_OFFERED_ON_CUDA,
    CacheLayer,
    Manifest,
    OpUse,
    Provider,
    Target,
    TensorSpec,
    Weights,
)
from gptoss_onnx.reference import Checkpoint, GptOss, ModelConfig, open_checkpoint
from gptoss_onnx.reference.dense_int8 import INT8_FILE, use_dense_int8
from gptoss_onnx.reference.experts_int4 import EXPERTS_INT4, use_experts_int4

GRAPH_FILE = "model.onnx"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION_CONFIG = "generation_config.json"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
GOLDEN_LIMIT = 1 << 30  # bytes of weights up to which the reference forward for golden vectors is cheap
CUDA_LOSS = "activations of attention and experts in bfloat16"
KvDtype = Literal["float32", "float16", "bfloat16"]
Dense = Literal["checkpoint", "int8"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A written package: its folder and the manifest in it."""

    folder: Path
    manifest: Manifest


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    target: Target = "portable",
    provider: Provider = "cpu",
    weights: WeightMode | None = None,
    dense: Dense = "checkpoint",
    experts: Experts = "checkpoint",
    kv_dtype: KvDtype | None = None,
    force: bool = False,
) -> Package:
    """Export a gpt-oss checkpoint to a package folder.

    Reads no weight byte, except for checkpoints under 1 GiB, whose golden vectors need a forward pass, and those that
    `dense` or `target` converts.

    Args:
        checkpoint: a folder, or a hub id in the local Hugging Face cache.
        output: the package folder to make; it appears only when it is complete.
        target: `portable`, the graph of `ai.gptoss` ops with their bodies, or `ort`, the same graph in the ops that
            every build of ONNX Runtime has.
        provider: what a graph of target `ort` is to run on. For `cuda` its attention and experts compute in bfloat16
            (lossy), and the experts stay MXFP4.
        weights: `link` the checkpoint's files into the package, `copy` them, or `reference` them where they are; None
            is `link`, and for target `ort`, which always has a weight file of its own, `copy`.
        dense: `checkpoint`, or `int8`: q, k, v, o and lm_head in 8 bits, in a file of the package's own (lossy).
        experts: `checkpoint`, or with target `ort` `int4`: MXFP4 rounded to 4-bit integers, half the bytes of the 8-bit
            ones that hold it (lossy).
        kv_dtype: element type of the KV cache; None is float32, and for provider `cuda` bfloat16, which takes no other.
        force: replace an existing package.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        PackageError: the output cannot be written; nothing is left behind.
        InputError: an option has no such value, or two do not go together.
    """
    _check_choice("target", target, ("portable", "ort"))
    _check_choice("provider", provider, ("cpu", "cuda"))
    weights = weights or ("copy" if target == "ort" else "link")
    kv_dtype = kv_dtype or ("float32" if provider == "cpu" else "bfloat16")
    _check_choice("weights", weights, ("link", "copy", "reference"))
    _check_choice("dense", dense, ("checkpoint", "int8"))
    _check_choice("experts", experts, ("checkpoint", "int4"))
    _check_choice("kv_dtype", kv_dtype, ("float32", "float16", "bfloat16"))
    if dense == "int8" and weights == "reference":
        raise InputError(
            "--dense int8 writes weights into the package, and --weights reference makes ONNX Runtime look for all of "
            "them below the checkpoint's folder: choose --weights link or copy"
        )
    if target == "ort":
        _check_ort(provider, weights, dense, experts, kv_dtype)
    elif experts != "checkpoint":
        raise InputError(
            f"--experts {experts}: found with --target {target}, which runs the checkpoint's own: leave --experts out, "
            "or choose --target ort"
        )
    elif provider != "cpu":
        raise InputError(
            f"--provider {provider}: found with --target {target}, which runs on every provider: leave --provider out"
        )
    output = Path(output).absolute()
    check_output(output, force)
    with open_checkpoint(checkpoint) as opened, staged_folder(output, force) as folder:
        if target == "ort":
            made = _make_ort(opened, folder, provider, experts, kv_dtype)
        else:
            made = _make_portable(opened, folder, weights, dense, kv_dtype)
        proto = ir.to_proto(made.graph)
        check_graph(proto)
        (folder / GRAPH_FILE).write_bytes(proto.SerializeToString(deterministic=True))
        tokenizer_files = _copy_side_files(opened, folder)
        if target == "ort":
            write_genai_config(opened.config, _special_ids(folder), GRAPH_FILE, folder, provider)
        _write_golden_if_small(opened, folder, dense, experts)
        unsupported = NOT_OFFERED[target] if provider == "cpu" else NOT_OFFERED_ON_CUDA
        manifest = _describe(opened.config, proto, made, target, kv_dtype, tokenizer_files, unsupported)
        manifest.write(folder)
    logger.info("wrote %s", output)
    return Package(output, manifest)


@dataclass(frozen=True)
class _Made:
    """A graph whose weights lie in the folder, their record, and what was lost on the way."""

    graph: ir.Model
    weights: Weights
    lossy: tuple[str, ...]


def _make_portable(checkpoint: Checkpoint, folder: Path, weights: WeightMode, dense: Dense, kv_dtype: KvDtype) -> _Made:
    placement = place_weights(checkpoint, folder, weights)  # first: what may be refused comes before what is slow
    graph = _trace(checkpoint, kv_dtype)
    lossy = _lossy_cache(kv_dtype)
    if dense == "int8":
        logger.info("quantizing the dense weights to int8")
        lossy += (convert_dense(graph, checkpoint, folder),)
    attach_weights(graph, checkpoint, placement)
    described = describe_weights(checkpoint, placement, folder, INT8_FILE if dense == "int8" else None)
    return _Made(graph, described, lossy)


def _make_ort(checkpoint: Checkpoint, folder: Path, provider: Provider, experts: Experts, kv_dtype: KvDtype) -> _Made:
    check_ort_config(checkpoint.config)
    if provider == "cuda":
        check_cuda_checkpoint(checkpoint)
    if experts == "int4":
        check_int4_checkpoint(checkpoint)
    graph = _trace(checkpoint, kv_dtype)
    logger.info("lowering to ONNX Runtime's own ops and writing their weights")
    lower_to_ort(graph, checkpoint, folder, provider, experts)
    lossy = _lossy_cache(kv_dtype) + (() if provider == "cpu" else (CUDA_LOSS,))
    lossy += (EXPERTS_INT4,) if experts == "int4" else ()
    return _Made(graph, describe_own_weights(checkpoint, folder, ORT_WEIGHTS, experts == "checkpoint"), lossy)


def _trace(checkpoint: Checkpoint, kv_dtype: KvDtype) -> ir.Model:
    logger.info("tracing %d layers of %s", checkpoint.config.num_layers, checkpoint.folder)
    reference = GptOss.from_checkpoint(checkpoint, device="meta")
    return tidy(trace(reference, getattr(torch, kv_dtype)), frozenset(checkpoint.tensors))


def _lossy_cache(kv_dtype: KvDtype) -> tuple[str, ...]:
    return () if kv_dtype == "float32" else (f"kv cache in {kv_dtype}",)


def _check_ort(provider: Provider, weights: WeightMode, dense: Dense, experts: Experts, kv_dtype: KvDtype) -> None:
    """Refuse options that do not go with target ort, each with what to do instead."""
    if weights != "copy":
        raise InputError(
            f"--weights {weights}: found with --target ort, whose weights are always a file of the package's own: "
            "leave --weights out"
        )
    if dense != "checkpoint":
        raise InputError(
            f"--dense {dense}: found with --target ort, expected checkpoint; export with --target portable"
        )
    if provider == "cuda" and experts != "checkpoint":
        raise InputError(
            f"--experts {experts}: found with --provider cuda, which runs the checkpoint's own MXFP4: leave --experts "
            "out"
        )
    if provider == "cuda" and kv_dtype != "bfloat16":
        raise InputError(
            f"--kv-dtype {kv_dtype}: found with --target ort --provider cuda, expected bfloat16 (what attention "
            "computes in there): leave --kv-dtype out"
        )
    if provider == "cpu" and kv_dtype == "bfloat16":
        raise InputError(
            "--kv-dtype bfloat16: found with --target ort, expected float32 or float16 (GroupQueryAttention has no "
            "bfloat16 on the CPU)"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")


def _copy_side_files(checkpoint: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Copy tokenizer, chat template and generation settings as they came; returns the tokenizer's file names."""
    copied = []
    for name in TOKENIZER_FILES:
        source = checkpoint.path_of(name)
        if source is not None:
            shutil.copyfile(source, folder / name)
            copied.append(name)
    settings = checkpoint.path_of(GENERATION_CONFIG)
    if settings is not None:
        shutil.copyfile(settings, folder / GENERATION_CONFIG)
    else:
        config = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))
        ids = {key: config.get(key) for key in SPECIAL_IDS}
        text = json.dumps({key: value for key, value in ids.items() if value is not None}, indent=2)
        (folder / GENERATION_CONFIG).write_text(text + "\n", encoding="utf-8")
    return tuple(copied)


def _special_ids(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / GENERATION_CONFIG).read_text(encoding="utf-8"))
    return {key: settings[key] for key in SPECIAL_IDS if settings.get(key) is not None}


def _write_golden_if_small(checkpoint: Checkpoint, folder: Path, dense: Dense, experts: Experts) -> None:
    size = sum(path.stat().st_size for path in checkpoint.files)
    if size >= GOLDEN_LIMIT:
        logger.info(
            "no golden vectors: %.1f GB of weights; write them with `gptoss-onnx validate --write-golden`", size / 1e9
        )
        return
    model = GptOss.from_checkpoint(checkpoint)
    if dense == "int8":  # what every client of this package is to compute
        use_dense_int8(model, folder / INT8_FILE)
    if experts == "int4":
        use_experts_int4(model, folder / ORT_WEIGHTS)
    write_golden(model, folder, checkpoint.path_of("tokenizer.json"))


def _describe(
    config: ModelConfig,
    proto: onnx.ModelProto,
    made: _Made,
    target: Target,
    kv_dtype: str,
    tokenizer_files: tuple[str, ...],
    unsupported: tuple[str, ...],
) -> Manifest:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    ops = Counter((node.domain, node.op_type) for node in proto.graph.node if node.domain)
    return Manifest(
        exporter=f"{proto.producer_name} {proto.producer_version}",
        target=target,
        model=config.to_json(),
        graph=GRAPH_FILE,
        opset=OPSET_VERSION,
        inputs=tuple(_spec(value) for value in proto.graph.input),
        outputs=tuple(_spec(value) for value in proto.graph.output),
        kv_dtype=kv_dtype,
        cache=tuple(_cache_layer(config, layer) for layer in range(config.num_layers)),
        ops=tuple(OpUse(domain, name, versions[domain], count) for (domain, name), count in sorted(ops.items())),
        weights=made.weights,
        tokenizer_files=tokenizer_files,
        lossy=made.lossy,
        unsupported=unsupported,
    )


def _cache_layer(config: ModelConfig, layer: int) -> CacheLayer:
    past, present = f"past_key_values.{layer}", f"present.{layer}"
    return CacheLayer(
        window=config.window_of(layer),
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
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
