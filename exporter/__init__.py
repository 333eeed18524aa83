"""Turn a checkpoint into a package: trace the reference, attach bodies and weights, write the
folder atomically.
"""

from gptoss_onnx.exporter.export_package import export
from gptoss_onnx.package import Package

__all__ = ["Package", "export"]
