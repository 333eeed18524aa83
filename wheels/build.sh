#!/usr/bin/env bash
# Builds what is published, into dist/: the sdist, and from it one wheel for each of MACHINES,
# linked against glibc 2.28, however new this machine's is. docs/wheels.md says what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

MACHINES=${MACHINES:-x86_64 aarch64}
glibc=2.28
work=$PWD/build/wheels
bin=$work/tools/bin

main() {
  for machine in $MACHINES; do require_compiler "$machine"; done
  install_tools
  rm -rf "$work"/{first,source,out}
  make_sdist
  for machine in $MACHINES; do make_wheel "$machine"; done
  "$bin/twine" check --strict "$work"/out/*.{tar.gz,whl}
  "$bin/python" wheels/check.py "$work"/out/*.{tar.gz,whl}
  mkdir -p dist
  mv "$work"/out/*.{tar.gz,whl} dist/
}

# The C++ compiler whose code runs on machine $1.
compiler() {
  if [ "$1" = "$(uname -m)" ]; then echo "${CXX:-c++}"; else echo "$1-linux-gnu-g++"; fi
}

require_compiler() {
  command -v "$(compiler "$1")" >/dev/null && return
  echo "wheels: found no $(compiler "$1"), which compiles for $1: install GCC 11 or newer" \
    "(Debian: g++-${1//_/-}-linux-gnu), or leave $1 out of MACHINES, now '$MACHINES'" >&2
  exit 1
}

install_tools() {
  if ! cmp -s wheels/tools.txt "$work/tools/installed.txt"; then
    "${PYTHON:-python3}" -m venv --clear "$work/tools"
    "$bin/pip" install --quiet -r wheels/tools.txt
    cp wheels/tools.txt "$work/tools/installed.txt"
  fi
  export PATH=$bin:$PATH # CMake and Ninja
}

# Twice: the second one, and so every wheel, has the addresses of REPOSITORY_URL.
make_sdist() {
  "$bin/python" -m build --no-isolation --sdist --outdir "$work/first" .
  mkdir -p "$work/source"
  tar -xzf "$work"/first/*.tar.gz -C "$work/source" --strip-components 1
  if [ -n "${REPOSITORY_URL:-}" ]; then
    cat >> "$work/source/pyproject.toml" <<END

[project.urls]
Homepage = "$REPOSITORY_URL"
Repository = "$REPOSITORY_URL"
Issues = "$REPOSITORY_URL/issues"
Changelog = "$REPOSITORY_URL/blob/HEAD/CHANGELOG.md"
END
  fi
  "$bin/python" -m build --no-isolation --sdist --outdir "$work/out" "$work/source"
}

make_wheel() {
  local machine=$1 platform=manylinux_${glibc/./_}_$1
  link_libraries "$machine" "$work/glibc-$machine"
  _PYTHON_HOST_PLATFORM=linux-$machine "$bin/pip" wheel --no-deps --no-build-isolation \
    --wheel-dir "$work/first" "$work/source" \
    -C cmake.define.CMAKE_SYSTEM_NAME=Linux \
    -C cmake.define.CMAKE_SYSTEM_PROCESSOR="$machine" \
    -C cmake.define.CMAKE_CXX_COMPILER="$(compiler "$machine")" \
    -C cmake.define.GPTOSS_GLIBC="$work/glibc-$machine"
  local wheel=("$work"/first/*linux_"$machine".whl)
  "$bin/auditwheel" show "${wheel[0]}"
  # not `auditwheel repair`, which tags for this machine alone; check.py asks for what the tag says
  "$bin/wheel" tags --platform-tag "$platform" --remove "${wheel[0]}"
  mv "$work/first"/*"$platform.whl" "$work/out/"
}

# Puts the libraries of glibc for machine $1 into folder $2. They hold names and versions alone,
# made by zig for what it links; a symbol of a newer glibc is then an error of the linker.
link_libraries() {
  local cache=$work/zig-$1 made
  [ -e "$2/libc.so" ] && return
  rm -rf "$cache" "$2"
  mkdir -p "$cache" "$2"
  : > "$cache/empty.c"
  ZIG_LOCAL_CACHE_DIR=$cache ZIG_GLOBAL_CACHE_DIR=$cache "$bin/python" -m ziglang cc \
    -target "$1-linux-gnu.$glibc" -shared "$cache/empty.c" -o "$cache/empty.so"
  made=$(dirname "$(find "$cache/o" -name libc.so.6)")
  cp "$made"/lib{c,m,pthread,ld}.so.* "$2/"
  ln -s libm.so.6 "$2/libm.so"
  # Threads were a library of their own until 2.34: CMake may not ask for it, having looked here.
  echo 'INPUT(libc.so.6 AS_NEEDED(libpthread.so.0 libld.so.2))' > "$2/libc.so"
  rm -rf "$cache"
}

main
