#!/usr/bin/env bash
# Builds the image of the Dockerfile with buildah, which needs no daemon, on a root made by
# debootstrap in place of python:*-slim, which needs no registry.
#
#   bash tests/image/build.sh TAG    (as root; Debian packages buildah and debootstrap)
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly TAG=$1 BASE=localhost/gptoss-onnx-base RELEASE=bookworm
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if ! buildah inspect --type image "$BASE" > /dev/null 2>&1; then
  # Where packages come from is the machine's own choice.
  source=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2> /dev/null | head -1)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$RELEASE" "$scratch/root" ${source:+"$source"} > "$scratch/debootstrap.log" \
    || { tail -5 "$scratch/debootstrap.log" >&2; exit 1; }
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$scratch/root" / > /dev/null
  buildah commit --quiet "$container" "$BASE" > /dev/null
  buildah rm "$container" > /dev/null
fi

# What a build needs to reach package indexes from here: certificates and the settings of apt and
# pip. With a daemon the daemon's own do.
mounts=()
for path in /etc/ssl/certs /etc/apt /etc/pip.conf; do
  [[ -e $path ]] && mounts+=(--volume "$path:$path:ro")
done
# The form of Docker: the other one has no HEALTHCHECK.
buildah bud --format docker --build-arg "BASE=$BASE" "${mounts[@]}" --tag "$TAG" .
