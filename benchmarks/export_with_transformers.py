"""Export a checkpoint with what transformers and PyTorch offer themselves, for exporters.py.

    python benchmarks/export_with_transformers.py WAY CHECKPOINT OUTPUT

WAY is `exporters` (transformers.exporters) or `torch` (torch.onnx.export of transformers' model).
The model is loaded in float32, MXFP4 decoded, since ONNX Runtime multiplies no bfloat16 on a CPU.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Mxfp4Config

TOKENS = 7  # of each row of the sample; unlike any size of the models


def main() -> None:
    """Run one way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=["exporters", "torch"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    if arguments.way == "torch":
        with_torch(model, arguments.output)
    else:
        with_exporters(model, arguments.output)


def load(checkpoint: Path) -> Any:
    """Return transformers' model in float32."""
    fields = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    options: dict[str, Any] = {}
    if fields.get("quantization_config", {}).get("quant_method") == "mxfp4":
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, **options)
    return model.float().eval()


def with_exporters(model: Any, output: Path) -> None:
    """Export as the documentation of transformers.exporters shows it, shapes dynamic."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    # Rows of unlike tokens: one row, or a mask without padding, would become part of the graph.
    ids = torch.arange(2 * TOKENS).reshape(2, TOKENS) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 0] = 0
    exported = OnnxExporter().export_for_generation(
        model,
        {"input_ids": ids, "attention_mask": mask},
        OnnxConfig(dynamic=True),
    )
    exported.save_pretrained(output)


def with_torch(model: Any, output: Path) -> None:
    """Export the model as the documentation of torch.onnx.export does: its caches are outputs."""
    ids = torch.arange(2 * TOKENS).reshape(2, TOKENS) % model.config.vocab_size
    output.mkdir(parents=True)
    torch.onnx.export(
        model,
        (),
        output / "model.onnx",
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamo=True,
    )


if __name__ == "__main__":
    main()
