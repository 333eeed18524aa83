#!/bin/sh
# Make build/clients/openvino, the environment of OpenVINO for tests/clients/test_columns.py. It is
# one of its own, because nothing else here needs OpenVINO. PYTHON chooses the Python.
set -eu
cd "$(dirname "$0")/../.."
[ -x build/clients/openvino/bin/python ] || "${PYTHON:-python3}" -m venv build/clients/openvino
build/clients/openvino/bin/pip install -c constraints.txt 'openvino==2026.4.*' numpy
