"""Traces and golden vectors, made once a test run by whichever export needs them first, and read by
the others.

They take nearly all of an export's seconds. A graph depends on nothing but the configuration, the
parameters' names, types and shapes, and the cache's type; golden vectors on the configuration, the
weights and the tokenizer. They are kept in files, which the processes of a parallel run share.
"""

import copy
import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from filelock import FileLock
from torch.onnx._internal.exporter._registration import ONNXRegistry

from gptoss_onnx.exporter import export_package, planned
from gptoss_onnx.exporter.golden import write_golden
from gptoss_onnx.exporter.trace import trace
from gptoss_onnx.package import GOLDEN_FILE
from gptoss_onnx.reference import Decoder


@contextmanager
def made_once(folder: Path) -> Iterator[None]:
    """Inside the block, `export` keeps its traces and golden vectors in `folder`, and takes those
    that are there.
    """
    folder.mkdir(exist_ok=True)

    def kept_trace(model: Decoder, kv_dtype: torch.dtype) -> ir.Model:
        parameters = [
            (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in model.state_dict().items()
        ]
        path = folder / f"{_digest(model.config, parameters, kv_dtype)}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _save(trace(model, kv_dtype), path)
            return _load(path)

    def kept_golden(model: Decoder, target: Path, tokenizer_file: Path | None) -> None:
        weights = [
            (name, tensor.dtype, _digest(_bytes(tensor)))
            for name, tensor in model.state_dict().items()
        ]
        tokenizer = tokenizer_file and tokenizer_file.read_bytes()
        path = folder / f"{_digest(model.config, weights, tokenizer)}.json"
        written = target / GOLDEN_FILE
        with FileLock(f"{path}.lock"):
            if path.exists():
                written.parent.mkdir()
                written.write_bytes(path.read_bytes())
            else:
                write_golden(model, target, tokenizer_file)
                _appear(path, written.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ONNXRegistry, "from_torchlib", staticmethod(_read_once(ONNXRegistry.from_torchlib))
        )
        patch.setattr(planned, "trace", kept_trace)
        patch.setattr(export_package, "write_golden", kept_golden)
        yield


def _read_once(read: Callable[[int], ONNXRegistry]) -> Callable[[int], ONNXRegistry]:
    """Return `read`, which parses the sources of hundreds of translations, so that it does so once
    in a process; each caller gets a registry of its own, to add to.
    """
    known = functools.cache(read)

    def registry(opset_version: int) -> ONNXRegistry:
        own = copy.copy(known(opset_version))
        own.functions = {op: list(found) for op, found in own.functions.items()}
        return own

    return registry


def _save(model: ir.Model, path: Path) -> None:
    """Write a trace, whose initializers but one have no value, which a file cannot say."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.ExternalTensor(
                "none", 0, 0, value.dtype, shape=value.shape, name=name
            )
    _appear(path, ir.to_proto(model).SerializeToString())


def _load(path: Path) -> ir.Model:
    model = ir.from_proto(onnx.load_model_from_string(path.read_bytes()))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return model.clone()  # with shapes that passes may change


def _appear(path: Path, content: bytes) -> None:
    """Write a file that is whole wherever it is seen: a test may be killed by its timeout."""
    begun = path.with_suffix(".begun")
    begun.write_bytes(content)
    begun.rename(path)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _digest(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()
