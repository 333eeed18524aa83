#!/usr/bin/env bash
# Makes the virtual environments of other people's exporters, once, in build/exporters/. Each has
# its own, since they want other versions of transformers than this project. PYTHON chooses the
# Python.
#
#   bash benchmarks/exporters_venvs.sh
set -euo pipefail

readonly GENAI=0.18.0 OPTIMUM_ONNX=0.1.0 OPTIMUM_TRANSFORMERS=4.57.6 ACCELERATE=1.12.0
cd "$(dirname "$0")/.."
mkdir -p build/exporters

# What this project is pinned to.
pinned() { grep "^$1==" constraints.txt; }

environment() { # its name, then what is installed
  local folder=build/exporters/$1
  shift
  [[ -x $folder/bin/python ]] || "${PYTHON:-python3}" -m venv "$folder"
  "$folder/bin/pip" install --quiet "$@"
}

environment genai "onnxruntime-genai==$GENAI" "accelerate==$ACCELERATE" \
  "$(pinned transformers)" "$(pinned torch)" "$(pinned onnx)" "$(pinned onnx-ir)" \
  "$(pinned onnxruntime)"
environment optimum "optimum-onnx[onnxruntime]==$OPTIMUM_ONNX" \
  "transformers==$OPTIMUM_TRANSFORMERS" "accelerate==$ACCELERATE" "$(pinned torch)"
