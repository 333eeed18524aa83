"""A package as a model of Hugging Face transformers: `pipeline` and `generate` run on it.

`model` has the class, `cache` its KV cache, `columns` the way from transformers' padded columns to
a package's rows. It is an extra: `pip install "gptoss-onnx[cpu,transformers]"`.
"""

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.extras import install_command

try:
    from gptoss_onnx.transformers.cache import PackageCache
    from gptoss_onnx.transformers.model import GptossOnnxForCausalLM
except ModuleNotFoundError as error:
    if error.name not in ("torch", "transformers"):
        raise
    raise RuntimeUnavailable(
        f"{error.name} is not installed: gptoss_onnx.transformers needs "
        f"{install_command('transformers')}"
    ) from error

__all__ = ["GptossOnnxForCausalLM", "PackageCache"]
