"""`gptoss-onnx make-checkpoint`: random checkpoints, tiny ones of any shape and the two real
shapes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.cli.console import extra, say, verbose_option
from gptoss_onnx.cli.progress import progress_on_stderr

SHAPE_OPTIONS = {  # flag: field of DecoderConfig, and what it counts
    "--hidden-size": ("hidden_size", "Width of the residual stream."),
    "--intermediate-size": ("intermediate_size", "Width of one expert."),
    "--vocab-size": ("vocab_size", "Token ids."),
    "--heads": ("num_heads", "Query heads."),
    "--kv-heads": ("num_kv_heads", "Key and value heads."),
    "--head-dim": ("head_dim", "Width of one head."),
    "--experts": ("num_experts", "Experts a layer."),
    "--top-k": ("top_k", "Experts a token."),
    "--window": ("window", "Tokens that a sliding layer sees."),
    "--max-position-embeddings": ("max_position_embeddings", "Longest sequence."),
}


def _shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, (field, text) in reversed(SHAPE_OPTIONS.items()):
        command = click.option(flag, field, type=click.IntRange(min=1), help=f"tiny: {text}")(
            command
        )
    return command


@click.command("make-checkpoint", short_help="Write a checkpoint of random weights.")
@click.argument("model", type=click.Choice(["tiny", "20b", "120b"]))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layers", type=click.IntRange(min=1), help="Layers; of 20b and 120b the first so many."
)
@click.option(
    "--layout",
    type=click.Choice(["hf-mxfp4", "hf-bf16"]),
    default="hf-mxfp4",
    show_default=True,
    help="hf-mxfp4 packs the experts, as published; hf-bf16 stores them dense.",
)
@click.option(
    "--sparse",
    is_flag=True,
    help="Leave holes instead of values: zero weights that take no disk space.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random values."
)
@_shape_options
@click.option(
    "--tied/--untied",
    "tie_word_embeddings",
    default=None,
    help="tiny: lm_head is the embedding matrix.",
)
@verbose_option
def make_checkpoint(
    model: Literal["tiny", "20b", "120b"],
    out: Path,
    layers: int | None,
    layout: Literal["hf-mxfp4", "hf-bf16"],
    sparse: bool,
    seed: int,
    **shape: int | bool | None,
) -> None:
    """Write a checkpoint of random weights, without a tokenizer, into the new folder OUT."""
    given = {field: value for field, value in shape.items() if value is not None}
    if model != "tiny" and given:
        flags = {field: flag for flag, (field, _) in SHAPE_OPTIONS.items()} | {
            "tie_word_embeddings": "--tied/--untied"
        }
        raise click.UsageError(
            f"{', '.join(flags[field] for field in given)}: only for tiny; the shape of {model} is "
            "fixed "
            "(--layers shortens it)"
        )
    with progress_on_stderr() as display:
        display.begin("loading PyTorch")
        with extra("export"):
            from gptoss_onnx.reference import synthetic

        if model == "tiny":
            config = synthetic.tiny_config(
                **given, **({} if layers is None else {"num_layers": layers})
            )
        else:
            config = synthetic.real_config(model, layers)
        synthetic.make_checkpoint(
            out, config, layout=layout, seed=seed, sparse=sparse, progress=display
        )
    files = sorted(out.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    holes = ", all holes" if sparse else ""
    layers_made, files_made = count_of(config.num_layers, "layer"), count_of(len(files), "file")
    say(
        f"{out}: {model}, {layers_made}, {layout}, {files_made} of weights "
        f"({file_size(size)}{holes})"
    )
