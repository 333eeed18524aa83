"""`gptoss-onnx make-checkpoint`: random checkpoints, tiny ones and published shapes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.cli.console import extra, say, verbose_option
from gptoss_onnx.cli.progress import progress_on_stderr

SHAPE_OPTIONS = {  # flag: key of config.json, and what it counts
    "--hidden-size": ("hidden_size", "Width of the residual stream."),
    "--intermediate-size": ("intermediate_size", "Width of a feed-forward layer or of an expert."),
    "--vocab-size": ("vocab_size", "Token ids."),
    "--heads": ("num_attention_heads", "Query heads."),
    "--kv-heads": ("num_key_value_heads", "Key and value heads."),
    "--head-dim": ("head_dim", "Width of one head."),
    "--experts": ("num_local_experts", "Experts a layer."),
    "--top-k": ("num_experts_per_tok", "Experts a token."),
    "--window": ("sliding_window", "Tokens that a sliding layer sees."),
    "--max-position-embeddings": ("max_position_embeddings", "Longest sequence."),
}
TIED = "--tied/--untied"


def _shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, (key, text) in reversed(SHAPE_OPTIONS.items()):
        command = click.option(flag, key, type=click.IntRange(min=1), help=f"tiny: {text}")(command)
    return command


@click.command("make-checkpoint", short_help="Write a checkpoint of random weights.")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layers", type=click.IntRange(min=1), help="Layers; of a published shape the first so many."
)
@click.option(
    "--layout",
    type=click.Choice(["hf-mxfp4", "hf-bf16", "openai"]),
    help="hf-mxfp4 packs the experts, hf-bf16 stores them dense, openai is original/ of gpt-oss; "
    "as published where left out.",
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
    TIED, "tie_word_embeddings", default=None, help="tiny: lm_head is the embedding matrix."
)
@verbose_option
def make_checkpoint(
    model: str,
    out: Path,
    layers: int | None,
    layout: Literal["hf-mxfp4", "hf-bf16", "openai"] | None,
    sparse: bool,
    seed: int,
    **shape: int | bool | None,
) -> None:
    """Write a checkpoint of random weights, without a tokenizer, into the new folder OUT.

    MODEL is a small model (tiny, or tiny- and a model type) or a published shape such as
    gpt-oss-20b; an unknown one lists them all.
    """
    given: dict[str, Any] = {key: value for key, value in shape.items() if value is not None}
    with progress_on_stderr() as display:
        display.begin("loading PyTorch")
        with extra("export"):
            from gptoss_onnx.reference import synthetic

        model_type = synthetic.tiny_type(model)
        if given and model_type is None:
            flags = {key: flag for flag, (key, _) in SHAPE_OPTIONS.items()}
            named = ", ".join((flags | {"tie_word_embeddings": TIED})[key] for key in given)
            raise click.UsageError(
                f"{named}: only for tiny; the shape of {model} is fixed (--layers shortens it)"
            )
        if layout == "hf-bf16":
            given["quantization_config"] = None
        document = (
            synthetic.preset_document(model, layers)
            if model_type is None
            else synthetic.tiny_document(model_type, layers, **given)
        )
        config = synthetic.make_checkpoint(
            out, document, layout=layout, seed=seed, sparse=sparse, progress=display
        )
    files = sorted(out.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    holes = ", all holes" if sparse else ""
    layers_made, files_made = count_of(config.num_layers, "layer"), count_of(len(files), "file")
    layout_made = layout or ("hf-mxfp4" if config.layout == "hf-mxfp4" else "hf-bf16")
    say(
        f"{out}: {model}, {layers_made}, {layout_made}, {files_made} of weights "
        f"({file_size(size)}{holes})"
    )
