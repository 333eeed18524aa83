"""Build a package with the model builder that comes with onnxruntime-genai, for whole_model.py.

    python benchmarks/genai_builder.py BUILDER CHECKPOINT OUTPUT [--accuracy-level 4]

BUILDER is the folder of its builder.py. Everything is as its users have it (`-p int4 -e cpu`: 4-bit
experts and projections, float32 activations and cache), but for two things. transformers would
decode all experts into memory, 1.6 GB a layer in gpt-oss-20b, and the builder, which reads the
experts from the files itself, would not look at them: they stay on the meta device here. And the
tokenizer, which a checkpoint of random numbers has not, is one of a single word.
"""

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file

EXPERTS = (".gate_up_proj_blocks", ".gate_up_proj_scales", ".down_proj_blocks", ".down_proj_scales")


def main() -> None:
    """Run the builder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("builder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--accuracy-level", type=int, help="of MatMulNBits; 4 is 8-bit activations")
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".partial")
    transformers.AutoModelForCausalLM.from_pretrained = without_experts
    transformers.AutoTokenizer.from_pretrained = small_tokenizer
    words = ["-m", str(arguments.checkpoint), "-o", str(partial), "-c", str(partial / "cache")]
    words += ["-p", "int4", "-e", "cpu"]
    if arguments.accuracy_level is not None:
        words += ["--extra_options", f"accuracy_level={arguments.accuracy_level}"]
    sys.argv = [str(arguments.builder / "builder.py"), *words]
    sys.path.insert(0, str(arguments.builder))
    runpy.run_path(sys.argv[0], run_name="__main__")
    partial.rename(arguments.output)


def without_experts(checkpoint: str, **_: Any) -> torch.nn.Module:
    """Return transformers' model of a checkpoint, mapped from its files, experts left out."""
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    del config.quantization_config
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        tensors |= {
            name: tensor for name, tensor in load_file(file).items() if not name.endswith(EXPERTS)
        }
    lacking = model.load_state_dict(tensors, assign=True, strict=False)
    assert not lacking.unexpected_keys, lacking.unexpected_keys
    return model


def small_tokenizer(*_: Any, **__: Any) -> transformers.PreTrainedTokenizerFast:
    """Stand for the tokenizer that the checkpoint has not."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


if __name__ == "__main__":
    main()
