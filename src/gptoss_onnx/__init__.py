"""Export gpt-oss checkpoints to ONNX, prove the result against PyTorch, run it with ONNX
Runtime.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # looked up when asked for: the lookup is half of the command line's start-up time
    if name == "__version__":
        from importlib.metadata import version

        return version("gptoss-onnx")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
