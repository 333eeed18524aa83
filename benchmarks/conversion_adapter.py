"""A PEFT adapter of gpt-oss-20b's shapes with random values, for conversion.py."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, WIDTH, EXPERTS, QUERY, KEY, RANK = 2880, 2880, 32, 4096, 512, 16
ATTENTION = {
    "q_proj": (HIDDEN, QUERY),
    "k_proj": (HIDDEN, KEY),
    "v_proj": (HIDDEN, KEY),
    "o_proj": (QUERY, HIDDEN),
}
# As PEFT names them where both are targeted: the first is wrapped deeper.
STACKED = {"base_layer.": (HIDDEN, 2 * WIDTH), "": (WIDTH, HIDDEN)}


def make_adapter(folder: Path, part: str, layers: int) -> Path:
    """Write an adapter of `attention` or of all `experts` into `folder`, and return it."""
    settings: dict[str, object] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    generator, tensors = torch.Generator().manual_seed(0), {}

    def add(module: str, inputs: int, outputs: int, count: int) -> None:
        for name, shape in (("A", (RANK * count, inputs)), ("B", (outputs, RANK * count))):
            values = torch.randn(shape, generator=generator) * 0.01
            tensors[f"base_model.model.model.layers.{module}.lora_{name}.weight"] = values

    for layer in range(layers):
        if part == "attention":
            for name, (inputs, outputs) in ATTENTION.items():
                add(f"{layer}.self_attn.{name}", inputs, outputs, 1)
        else:
            for wrapper, (inputs, outputs) in STACKED.items():
                add(f"{layer}.mlp.experts.{wrapper}".rstrip("."), inputs, outputs, EXPERTS)
    if part == "attention":
        settings["target_modules"] = list(ATTENTION)
    else:
        settings["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        settings["target_modules"] = []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
