"""fingerprint: OpenAI's `system_fingerprint`, alike where a seed should give the same answer."""

import hashlib

from gptoss_onnx.package import Package


def fingerprint(package: Package) -> str:
    """Return a short digest of a package's manifest, which names its weights and its graph."""
    manifest = package.manifest
    weights = [(entry.name, entry.size, entry.header_sha256) for entry in manifest.weights.files]
    content = repr((manifest.exporter, manifest.target, manifest.graph, manifest.ops, weights))
    return f"fp_{hashlib.sha256(content.encode()).hexdigest()[:10]}"
