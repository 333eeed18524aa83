#!/usr/bin/env bash
# Builds what the benchmarks compare with, once, into build/peers/: llama.cpp for this very
# processor (the prebuilt wheels lack AVX-512), and a virtual environment with onnxruntime-genai and
# what writes GGUF files and draws plots.
# Needs a C++ compiler and about ten minutes.
#
#   bash benchmarks/peers.sh
set -euo pipefail

readonly LLAMA_CPP_PYTHON=0.3.36 GGUF=0.19.0 GENAI=0.18.0
cd "$(dirname "$0")/.."
mkdir -p build/peers
cd build/peers

[[ -x venv/bin/python ]] || "${PYTHON:-python3}" -m venv venv
# ONNX Runtime is the one that this project is pinned to.
onnxruntime=$(grep '^onnxruntime==' ../../constraints.txt)
venv/bin/pip install --quiet cmake ninja "gguf==$GGUF" matplotlib "onnxruntime-genai==$GENAI" \
  "$onnxruntime"

# The sources of llama.cpp and of its Python bindings come in one source package.
if [[ ! -d source ]]; then
  venv/bin/pip install --quiet diskcache jinja2 typing-extensions # what the bindings import
  venv/bin/pip download --quiet --no-deps --no-binary llama-cpp-python --dest sdist \
    "llama-cpp-python==$LLAMA_CPP_PYTHON"
  mkdir -p unpacked bindings
  tar -xzf sdist/llama_cpp_python-*.tar.gz --strip-components=1 -C unpacked
  mv unpacked/llama_cpp bindings/
  mv unpacked/vendor/llama.cpp source
  rm -rf unpacked sdist
fi
# Without AMX: this version's AMX product of Q8_0 weights crashes on batches of several tokens
# (SIGSEGV in ggml_backend_amx_mul_mat). Its MXFP4 experts, most of the work, have no AMX kernels
# anyway.
no_amx="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
PATH="$PWD/venv/bin:$PATH" cmake -S source -B llama.cpp -G Ninja \
  -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON \
  -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
  -DCMAKE_C_FLAGS="$no_amx" -DCMAKE_CXX_FLAGS="$no_amx"
venv/bin/cmake --build llama.cpp --target llama llama-server
echo "built: build/peers/llama.cpp/bin"
