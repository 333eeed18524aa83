"""What a folder of another exporter holds: who wrote it, and which graph runs when."""

from dataclasses import dataclass

from gptoss_onnx.validation.foreign.graph import ForeignGraph


@dataclass(frozen=True)
class ForeignExport:
    """A folder that was recognised.

    Attributes:
        exporter: who wrote it, as far as its files tell, with the version if they say it.
        first: the graph for rows that hold nothing.
        later: the graph for rows that hold tokens; the same as `first` where one does both.
    """

    exporter: str
    first: ForeignGraph
    later: ForeignGraph

    @property
    def graphs(self) -> tuple[ForeignGraph, ...]:
        """Each graph once."""
        return (self.first,) if self.later is self.first else (self.first, self.later)

    @property
    def nbytes(self) -> int:
        """Bytes of all graphs and their weights."""
        return sum(graph.nbytes for graph in self.graphs)

    @property
    def rounded(self) -> tuple[str, ...]:
        """Which ops multiply weights that are stored as integers."""
        found = {op for graph in self.graphs for op in graph.rounded}
        return tuple(sorted(found))
