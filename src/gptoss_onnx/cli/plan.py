"""`gptoss-onnx plan`: what a model costs, before it is downloaded, exported or opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gptoss_onnx.amounts import file_size
from gptoss_onnx.cli.console import extra, print_json, say, verbose_option
from gptoss_onnx.errors import InputError, RuntimeUnavailable

if TYPE_CHECKING:
    from gptoss_onnx.checkpoint.tensors import Parameter
    from gptoss_onnx.reference.budget import Budget
    from gptoss_onnx.reference.config import DecoderConfig

CONTEXT = 4096


@click.command(short_help="Say what a model costs: parameters, bytes, operations, speed.")
@click.argument("model", metavar="NAME|CHECKPOINT|PACKAGE")
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help=f"Tokens in the cache; {CONTEXT} if omitted, or as many as the model takes.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Rows.")
@click.option(
    "--kv-dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="bfloat16",
    show_default=True,
    help="Numbers in the cache.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB/s",
    help="What memory gives; if omitted, it is measured on this machine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
@verbose_option
def plan(
    model: str,
    context: int | None,
    batch: int,
    kv_dtype: Literal["float32", "float16", "bfloat16"],
    bandwidth: float | None,
    as_json: bool,
) -> None:
    """Say what a model costs. Reads no weights.

    NAME is a published shape such as gpt-oss-20b (`make-checkpoint --help` lists them), CHECKPOINT
    a folder, GGUF file or hub id, PACKAGE what `export` wrote.
    """
    with extra("export"):
        from gptoss_onnx.reference.budget import Budget

    config, parameters = _model_of(model)
    if context is not None and context > config.longest:
        raise InputError(
            f"--context {context}: expected at most {config.longest}, the longest this model takes"
        )
    tokens = context or min(CONTEXT, config.longest)
    budget = Budget.of(config, tokens, batch, kv_dtype, parameters)
    speed, source = (bandwidth, "given") if bandwidth else _measured()
    most = {} if speed is None else {
        name: budget.tokens_per_second(name, speed) for name in budget.choices
    }  # fmt: skip
    if as_json:
        limits = {"bandwidth_gb_s": speed, "bandwidth_source": source, "tokens_per_second": most}
        print_json({"model": model, **budget.to_json(), **limits})
    else:
        say(_lines(model, config, budget, most, speed, source))


def _model_of(model: str) -> "tuple[DecoderConfig, Mapping[str, Parameter] | None]":
    """Return the configuration of a preset, a package or a checkpoint, and its parameters.

    Only a checkpoint says in which bytes they lie; for the others they are None.
    """
    from gptoss_onnx.manifest import MANIFEST_NAME, Manifest
    from gptoss_onnx.reference import open_checkpoint
    from gptoss_onnx.reference.architectures import ALIASES, PRESETS
    from gptoss_onnx.reference.synthetic import config_of, preset_document

    if model in (*PRESETS, *ALIASES) and not Path(model).exists():
        return config_of(preset_document(model)), None
    if (Path(model) / MANIFEST_NAME).exists():
        return config_of(Manifest.read(model).model), None
    with open_checkpoint(model) as checkpoint:
        return checkpoint.config, checkpoint.parameters


def _measured() -> tuple[float | None, str]:
    """Return what this machine's memory gives, or None and why that cannot be measured."""
    with extra("cpu"):
        from gptoss_onnx.bench.machine import read_rate
        from gptoss_onnx.processor import cores

    try:
        return read_rate(cores()), "measured on this machine"
    except RuntimeUnavailable as error:
        return None, str(error)


def _lines(
    model: str,
    config: "DecoderConfig",
    budget: "Budget",
    most: dict[str, float],
    speed: float | None,
    source: str,
) -> str:
    sizes = ", ".join(
        f"{kind} {file_size(count)}" for kind, count in budget.weight_bytes.items() if count
    )
    rows: dict[str, Any] = {
        "model": f"{model}: {config.model_type}, {config.num_layers} layers",
        "parameters": f"{budget.parameters:,}",
        "active": (
            f"{budget.active:,} a token, {budget.active_without_embedding:,} without the embedding"
        ),
        "weights": f"{file_size(budget.total_bytes)}: {sizes}",
        "cache": (
            f"{budget.cache_bytes_per_token:,} bytes a token in {budget.kv_dtype}, "
            f"{file_size(budget.cache_bytes)} for {budget.batch} × {budget.context} tokens"
        ),
        "operations": f"{budget.operations:.3g} a token at context {budget.context}",
        "bandwidth": source if speed is None else f"{speed:.1f} GB/s, {source}",
    }
    lines = [f"{name:<11} {value}" for name, value in rows.items()]
    lines += ["", f"{'export':<24}{'writes':>10}{'memory':>10}{'tokens/s at most':>18}"]
    for name, choice in budget.choices.items():
        rate = f"{most[name]:.1f}" if name in most else "unknown"
        lines.append(
            f"{name:<24}{file_size(choice.written):>10}"
            f"{file_size(choice.memory + budget.cache_bytes):>10}{rate:>18}"
        )
    return "\n".join(lines)
