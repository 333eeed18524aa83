"""`compare_graph`: does a package have the graph that a fresh export of its checkpoint has?"""

from gptoss_onnx.package import Package
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.validation.comparison.findings import Findings
from gptoss_onnx.validation.comparison.fresh import FreshExport, NotComparableError
from gptoss_onnx.validation.comparison.manifests import compare_manifests
from gptoss_onnx.validation.comparison.models import ModelDifferences
from gptoss_onnx.validation.comparison.ranges import compare_ranges
from gptoss_onnx.validation.report.document import Comparison

NAME = "graph"
DESCRIPTION = "nodes, attributes, constants and function bodies against a fresh export"


def compare_graph(package: Package, checkpoint: Checkpoint, progress: Progress) -> Comparison:
    """Compare a package's graph and manifest with those of a fresh export with its options.

    What differs is named by layer and op. Reads no weights.

    Args:
        package: whose files were checked, as by `runtime.open_package`.
        checkpoint: what the package was made from.
        progress: hears of the stages.

    Raises:
        PackageError: the package's graph cannot be read.
        CheckpointError: a file of the checkpoint has changed.
    """
    try:
        return graph_comparison(FreshExport.make(package, checkpoint, progress), progress)
    except NotComparableError as error:
        return without_export(NAME, DESCRIPTION, error)


def graph_comparison(fresh: FreshExport, progress: Progress) -> Comparison:
    """Compare as `compare_graph` does, where the fresh export has been made."""
    progress.begin("comparing the graph with a fresh export")
    findings = Findings(fresh.begun)
    ModelDifferences(findings, fresh.labels).compare(fresh.found, fresh.expected)
    compare_ranges(fresh, findings)
    compare_manifests(fresh, findings)
    return findings.comparison(NAME, DESCRIPTION, fresh.notes)


def without_export(name: str, description: str, error: NotComparableError) -> Comparison:
    """Return the verdict where there is no fresh export to compare with."""
    if not error.spoilt:
        return Comparison(name, description, "not available", 0.0, note=str(error))
    findings = Findings()
    findings.add("manifest.json", "options", error, "the options of an export")
    return findings.comparison(name, description)
