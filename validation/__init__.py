"""Prove that a package computes what the PyTorch reference computes: cases, limits and a report."""

from gptoss_onnx.validation.report.document import Report
from gptoss_onnx.validation.run import validate, write_golden_vectors

__all__ = ["Report", "validate", "write_golden_vectors"]
