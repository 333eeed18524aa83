#!/bin/sh
# Make build/lm-eval, an environment beside .venv that has lm-evaluation-harness and whatever .venv
# has. It is one of its own, because the harness brings forty packages (datasets, pandas,
# scikit-learn, …) that nothing else here needs. tests/lm_eval/test_harness.py runs it.
set -eu
cd "$(dirname "$0")/../.."
[ -x build/lm-eval/bin/python ] || .venv/bin/python -m venv build/lm-eval
ours=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
theirs=$(build/lm-eval/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$ours')" > "$theirs/gptoss_onnx_venv.pth"
build/lm-eval/bin/pip install -c constraints.txt 'lm-eval==0.4.13'
