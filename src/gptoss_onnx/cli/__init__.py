"""The `gptoss-onnx` command: one file per subcommand, each importing what it needs only when it
runs.
"""

from gptoss_onnx.cli.application import main

__all__ = ["main"]
