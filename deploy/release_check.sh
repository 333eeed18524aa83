#!/usr/bin/env bash
# What a release rests on, on a clean clone of the last commit and nothing that this tree holds
# besides: the tests that CI runs, the documentation, the wheels, and the wheel without a compiler.
# Takes about an hour on two cores.
#
#   make release-check
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n $(git status --porcelain) ]]; then
  echo "release-check: found changes that are not committed, expected a clean tree" >&2
  exit 2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
if git rev-parse --quiet --verify "refs/tags/v$version" > /dev/null; then
  echo "release-check: found a tag v$version already, expected a new version in pyproject.toml" >&2
  exit 2
fi
if ! grep -q "^## \[$version\] - [0-9]\{4\}-[0-9]\{2\}-[0-9]\{2\}$" CHANGELOG.md; then
  echo "release-check: CHANGELOG.md: found no heading '## [$version] - DATE', expected one" >&2
  exit 2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git clone --quiet . "$scratch/project"
cd "$scratch/project"

step() {
  echo "== $1"
  shift
  "$@"
}
step "what CI runs" bash .ci/run
step "the documentation, strictly" make docs
step "wheels and the sdist" make wheels
step "the wheels as strangers get them" make --assume-old=lint test MARKERS=wheels
echo "release-check: $version is ready: tag it v$version, and publish what make wheels builds"
