#!/bin/sh
# Make build/clients/genai, the virtual environment of onnxruntime-genai that
# tests/clients/test_genai.py runs. It is one of its own, because onnxruntime-genai brings an ONNX
# Runtime of its own choice. PYTHON chooses the Python.
set -eu
cd "$(dirname "$0")/../.."
[ -x build/clients/genai/bin/python ] || "${PYTHON:-python3}" -m venv build/clients/genai
build/clients/genai/bin/pip install -c constraints.txt 'onnxruntime-genai==0.18.*' numpy
