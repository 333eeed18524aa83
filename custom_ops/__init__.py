"""The custom ops of domain `ai.gptoss`: PyTorch definitions, ONNX schemas, portable bodies, and the
native library.

Importing this package loads none of torch, onnx or onnxscript; its modules do what their part
needs: `sink_attention`, `moe_dispatch`, `linear` and `mxfp4` hold the PyTorch definitions (the
    mathematics), `schemas` the
ONNX signatures, `bodies` the function bodies in standard ONNX ops, and `library` finds the compiled
kernels.
"""

DOMAIN = "ai.gptoss"
DOMAIN_VERSION = 1
