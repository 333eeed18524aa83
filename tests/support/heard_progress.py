"""A Progress that remembers what it heard."""

from gptoss_onnx.progress import Unit


class HeardProgress:
    """The stages in their order, with what each had to do and how much of it was done."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.totals: list[int | None] = []
        self.done: list[int] = []

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        self.stages.append(stage)
        self.totals.append(total)
        self.done.append(0)

    def advance(self, count: int) -> None:
        self.done[-1] += count
