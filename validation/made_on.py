"""What a run was made on and with, in words: the machine, and the versions that matter."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

import torch

from gptoss_onnx.processor import cores, cpu_name
from gptoss_onnx.runtime.environment import load_onnxruntime

PACKAGES = ("gptoss-onnx", "torch", "onnx", "onnxscript")


def versions() -> Mapping[str, str]:
    """Return the versions of what a result depends on."""
    found = {name: version(name) for name in PACKAGES}
    return {**found, "torch": torch.__version__, "onnxruntime": load_onnxruntime().__version__}


def machine() -> Mapping[str, str]:
    """Return in words what the run was made on."""
    return {
        "processor": cpu_name(),
        "cores": str(cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
