"""The custom ops of domain `ai.gptoss`: PyTorch definitions, ONNX schemas, portable bodies, and the
native library.

Importing this package loads none of torch, onnx or onnxscript; a module imports what it needs.
`sink_attention`, `moe_dispatch`, `linear` and `mxfp4` hold the PyTorch definitions (the
mathematics), `schemas` the ONNX signatures, and `bodies` the function bodies in standard ONNX ops.
`library` finds the compiled kernels.
"""

DOMAIN = "ai.gptoss"
DOMAIN_VERSION = 1
