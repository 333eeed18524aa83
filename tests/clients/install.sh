#!/usr/bin/env bash
# Installs what the tests of the clients need beyond the project itself: npm packages, ONNX Runtime
# for the C++ client, onnxruntime-genai and OpenVINO in environments of their own, the published
# tokenizer, and a Chromium. Says what it does, and what it cannot.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHON="${PYTHON:-$PWD/.venv/bin/python}"

fail() { echo "install.sh: $1" >&2; exit 2; }
command -v npm >/dev/null || fail "npm: not found, expected Node.js 20 or newer on the PATH"

for folder in clients/node clients/browser tests/clients/openai_npm; do
  # Without the install scripts: that of onnxruntime-node fetches the libraries of CUDA.
  echo "$folder: npm ci"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error)
done
[ -f build/onnxruntime/VERSION_NUMBER ] || clients/cpp/fetch_onnxruntime.sh
tests/clients/genai_venv.sh
tests/clients/openvino_venv.sh
tests/clients/published.sh
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  echo "chromium: not found on the PATH, installing Debian's"
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail "chromium: not found, and apt-get needs root: install it"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
