"""Columns `cpp`, `node` and `browser`: a client in another language verifies the package, and its
verdict is judged.

The client compares with the package's golden vectors and prints what it found (clients/README.md
says how). These vectors are first compared with the reference here, because a package cannot vouch
for itself. Then the numbers of the verdict are judged; what the client says of them does not count.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gptoss_onnx.errors import PackageError, ParityError, RuntimeUnavailable
from gptoss_onnx.json_text import JSON_LIMIT, parse_json, printable
from gptoss_onnx.package import Package
from gptoss_onnx.validation.columns.golden import (
    CLIENT_LIMITS,
    GoldenVectors,
    case_row,
    judge_case,
)
from gptoss_onnx.validation.columns.process import Program
from gptoss_onnx.validation.columns.session import Judged
from gptoss_onnx.validation.report.document import Cell, Column, Row, timed

FORMAT, FORMAT_VERSION = "gptoss-onnx-verdict", 1
TIMEOUT = 3600.0  # seconds; a large package in a browser takes its time
WORD = 100  # letters of what a client says of itself

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """How a client is started: its program, what comes before and after the package, and where it
    comes from.
    """

    program: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str


CLIENTS: Mapping[str, Client] = {
    "cpp": Client("gptoss-generate", (), ("--verify", "--json"), "clients/cpp"),
    "node": Client("gptoss-node", ("verify",), (), "clients/node"),
    "browser": Client("gptoss-browser", ("verify",), (), "clients/browser"),
}


class ClientColumn:
    """The column of a client.

    Args:
        name: `cpp`, `node` or `browser`.
        package: what it is to verify.
        vectors: the package's golden vectors, which all clients share.
        command: the words that start it; its program on the PATH if there are none.
    """

    def __init__(
        self,
        name: str,
        package: Package,
        vectors: GoldenVectors,
        command: Sequence[str] = (),
    ) -> None:
        self._client, self._vectors = CLIENTS[name], vectors
        self._words = list(command) or [self._client.program]
        missing = ""
        if package.manifest.kv_dtype != "float32":
            missing = (
                f"the package's cache is {package.manifest.kv_dtype}, and golden vectors judge "
                "float32: export with --kv-dtype float32"
            )
        elif shutil.which(self._words[0]) is None:
            missing = (
                f"{self._words[0]} is not found on the PATH; build it as "
                f"{self._client.source}/README.md says, or name its command with --client"
            )
        provider, options = f"{name} client", f"--runtime {name}"
        self.column = Column(name, "", "", "", provider, CLIENT_LIMITS, options, missing)

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Compare the golden vectors with the reference, let the client verify the package, and
        yield what each case found.

        A client that fails, or gives no verdict, is a refused cell of row `load`.
        """
        if self.column.missing:
            return
        name = self.column.name
        try:
            golden = self._vectors.read(judged)
        except PackageError as error:
            self.column = replace(self.column, missing=str(error))
            return
        judged.progress.begin(f"{name}: comparing the golden vectors with the reference")
        row = Row("golden vectors", "the package's golden vectors against the reference")
        yield row, timed(row, name, lambda: self._vectors.check(judged))
        judged.progress.begin(f"{name}: waiting for the client")
        load = Row("load", "opened by the client, which gives a verdict")
        try:
            verdict = self._verdict(judged.package)
        except (ParityError, RuntimeUnavailable) as error:
            self.column = replace(self.column, runs=f"the {name} client")
            yield load, Cell(load.name, name, "refused", 0.0, note=str(error))
            return
        said = {
            key: printable(str(verdict[key])[:WORD])
            for key in ("kernels", "activations", "runtime")
        }
        self.column = replace(
            self.column,
            runs=f"{said['kernels']} kernels, {said['activations']}, on the {name} client "
            f"({said['runtime']})",
            kernels=said["kernels"],
            activations=said["activations"],
        )
        yield load, Cell(load.name, name, "passed", 0.0)
        for case in golden.cases:
            row = case_row(case)
            yield row, timed(row, name, lambda case=case: judge_case(case, verdict))  # type: ignore[misc]  # the default binds it

    def _verdict(self, package: Package) -> dict[str, Any]:
        """Start the client, wait for it and return its verdict."""
        logger.info("%s: %s", self.column.name, " ".join(self._words))
        words = [*self._words, *self._client.before, str(package.folder), *self._client.after]
        with Program(words) as program:
            done = program.finish(b"", TIMEOUT, JSON_LIMIT)
        if done.code not in (0, 1):
            raise RuntimeUnavailable(done.last_words())
        return parse_verdict(done.output)


def parse_verdict(text: bytes) -> dict[str, Any]:
    """Return the verdict in a client's output; raises ParityError if the output is something
    else.
    """
    none = ParityError(f"found no {FORMAT} document of version {FORMAT_VERSION} on its stdout")
    try:
        verdict = parse_json(text, "stdout", ParityError)
    except ParityError as error:
        raise none from error
    cases = verdict.get("cases") if isinstance(verdict, dict) else None
    if (
        not isinstance(cases, list)
        or not all(isinstance(case, dict) for case in cases)
        or (verdict.get("format"), verdict.get("format_version")) != (FORMAT, FORMAT_VERSION)
        or not {"kernels", "activations", "runtime"} <= verdict.keys()
    ):
        raise none
    return dict(verdict)
