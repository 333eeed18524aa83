#!/usr/bin/env bash
# Puts ONNX Runtime where clients/cpp/CMakeLists.txt looks for it, for those who have no release
# archive:
#   clients/cpp/fetch_onnxruntime.sh [FOLDER [VERSION]]
#   FOLDER   build/onnxruntime of this repository, if it is left out
#   VERSION  such as 1.32.0; left out: the one that is installed, or else the newest
# The shared library is that of the Python package `onnxruntime`: the installed one of $PYTHON
# (default python3), or else one that pip downloads. Python packages ship no headers: those are the
# official ones inside an npm package.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/build/onnxruntime}
python=${PYTHON:-python3}
wanted=${2:-}
# An archive for Android with the headers of ONNX Runtime 1.26, which every newer one serves.
headers_package=com.github.asus4.onnxruntime@0.4.8

fail() { echo "fetch_onnxruntime.sh: $1" >&2; exit 2; }
for tool in npm tar "$python"; do
  command -v "$tool" >/dev/null || fail "$tool: not found, expected it on the PATH"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

library_below() { find "$1" -path '*capi/libonnxruntime.so.*' | head -n 1; }
find='import importlib.util
found = importlib.util.find_spec("onnxruntime")
print(found.submodule_search_locations[0] if found else "")'
installed=$("$python" -c "$find")
library=${installed:+$(library_below "$installed")}
if [ -z "$library" ] || [ "${library##*.so.}" != "${wanted:-${library##*.so.}}" ]; then
  # whatever version this project is tested with elsewhere
  env -u PIP_CONSTRAINT "$python" -m pip download --quiet --no-deps --dest "$scratch" \
    "onnxruntime${wanted:+==$wanted}" >&2
  "$python" -m zipfile -e "$scratch"/onnxruntime-*.whl "$scratch/wheel"
  library=$(library_below "$scratch/wheel")
fi
[ -n "$library" ] || fail "Python package onnxruntime: found no libonnxruntime.so.* in it"
version=${library##*.so.}

(cd "$scratch" && npm pack --silent "$headers_package" >/dev/null)
tar -xzf "$scratch"/*.tgz -C "$scratch" package/Plugins/Android/onnxruntime.aar
"$python" -m zipfile -e "$scratch/package/Plugins/Android/onnxruntime.aar" "$scratch/aar"
header=$scratch/aar/headers/onnxruntime_c_api.h
api=$(sed -n 's/^#define ORT_API_VERSION \([0-9]*\)$/\1/p' "$header")
minor=$(echo "$version" | cut -d . -f 2)
[ "$minor" -ge "$api" ] ||
  fail "libonnxruntime.so.$version: older than the headers, expected 1.$api or newer"

rm -rf "$folder"
mkdir -p "$folder/lib"
cp -r "$scratch/aar/headers" "$folder/include"
cp "$library" "$folder/lib/libonnxruntime.so.$version"
ln -s "libonnxruntime.so.$version" "$folder/lib/libonnxruntime.so.1"
ln -s libonnxruntime.so.1 "$folder/lib/libonnxruntime.so"
echo "$version" > "$folder/VERSION_NUMBER"
echo "$folder: ONNX Runtime $version, headers of 1.$api"
