"""Both comparisons of a package, on one fresh export."""

from gptoss_onnx.package import Package
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.validation.comparison import graph, weights
from gptoss_onnx.validation.comparison.fresh import FreshExport, NotComparableError
from gptoss_onnx.validation.report.document import Comparison


def compare(
    package: Package, checkpoint: Checkpoint, progress: Progress
) -> tuple[Comparison, Comparison]:
    """Return what `compare_graph` and `compare_weights` do, with one trace for both."""
    try:
        fresh = FreshExport.make(package, checkpoint, progress)
    except NotComparableError as error:
        parts = ((graph.NAME, graph.DESCRIPTION), (weights.NAME, weights.DESCRIPTION))
        first, second = (graph.without_export(*part, error) for part in parts)
        return first, second
    return (
        graph.graph_comparison(fresh, progress),
        weights.weights_comparison(fresh, progress),
    )
