#!/bin/sh
# Make build/ray, an environment beside .venv that has Ray Serve and whatever .venv has. It is one
# of its own, because Ray brings fifty packages that nothing else here needs.
# test_ray.py and test_triton.py run it; tritonclient has Triton's schema.
set -eu
cd "$(dirname "$0")/../../.."
[ -x build/ray/bin/python ] || .venv/bin/python -m venv build/ray
ours=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
theirs=$(build/ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$ours')" > "$theirs/gptoss_onnx_venv.pth"
build/ray/bin/pip install -c constraints.txt 'ray[serve]==2.60.*' 'tritonclient[grpc]'
