"""`validate --runtime cpp|node|browser`: a client in another language verifies a package, and its
verdict is judged.

The client compares with the package's golden vectors and prints what it found (clients/README.md
says how). These vectors are first compared with the reference here, because a package cannot vouch
for itself. Then the numbers of the verdict are judged; what the client says of them does not count.
"""

import logging
import math
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gptoss_onnx.errors import InputError, ParityError, RuntimeUnavailable
from gptoss_onnx.json_text import JSON_LIMIT, parse_json, printable
from gptoss_onnx.progress import LoggedProgress, Progress
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import open_package
from gptoss_onnx.validation.golden_file import Golden, GoldenCase, read_golden
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.outcome import Outcome
from gptoss_onnx.validation.made_on import machine, versions
from gptoss_onnx.validation.pair import check_pair, reference_model
from gptoss_onnx.validation.report.document import Cell, Column, Report, Row, State, timed

Client = Literal["cpp", "node", "browser"]
FORMAT, FORMAT_VERSION = "gptoss-onnx-verdict", 1
LIMITS = Limits(max_abs=1e-3, kl=math.inf, top1=0.0)  # a verdict holds the largest error alone
# The same float32 sums in another order, as another machine or number of threads makes them.
GOLDEN_LIMITS = Limits(max_abs=1e-4, kl=math.inf, top1=0.0)
TIMEOUT = 3600  # seconds; a large package in a browser takes its time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """How a client is started: its command, what comes before and after the package, and where it
    comes from.
    """

    command: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str


PROGRAMS: Mapping[str, Program] = {
    "cpp": Program("gptoss-generate", (), ("--verify", "--json"), "clients/cpp"),
    "node": Program("gptoss-node", ("verify",), (), "clients/node"),
    "browser": Program("gptoss-browser", ("verify",), (), "clients/browser"),
}


def validate_client(
    package: str | Path,
    reference: str | Path,
    runtime: Client,
    command: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Let a client verify a package, and judge its verdict.

    Args:
        package: the package folder, with golden vectors.
        reference: the checkpoint it was exported from: a folder or a hub id.
        runtime: `cpp`, `node` or `browser`.
        command: what starts the client, arguments included; None is its program's name, found on
            the PATH.
        progress: hears of the stages; None writes them to the log.

    Raises:
        InputError: the runtime is unknown, or the package's cache is not float32, so that golden
            vectors cannot judge it.
        PackageError: the package has no golden vectors.
        ParityError: the package was exported from another model, or the client's verdict does not
            cover every golden case.
        RuntimeUnavailable: the client cannot be started, or says that it cannot run.
    """
    if runtime not in PROGRAMS:
        raise InputError(f"runtime: found {runtime!r}, expected one of {', '.join(PROGRAMS)}")
    opened = open_package(package)
    folder, manifest = opened.folder, opened.manifest
    if manifest.kv_dtype != "float32":
        raise InputError(
            f"{folder}: its cache is {manifest.kv_dtype}; golden vectors judge packages with a "
            "float32 cache: export with --kv-dtype float32, or validate without --runtime"
        )
    progress = progress or LoggedProgress(logger)
    with open_checkpoint(reference) as checkpoint:
        golden = read_golden(folder, checkpoint.config.vocab_size)
        check_pair(opened, checkpoint, progress)
        progress.begin("comparing the golden vectors with the reference")
        model = reference_model(opened, checkpoint)
        row = Row("golden vectors", "the package's golden vectors against the reference")
        rows, cells = [row], [timed(row, runtime, partial(_check_golden, golden, model))]
        checkpoint.check_unchanged()
    progress.begin(f"waiting for the {runtime} client")
    verdict = _run(folder, runtime, command)
    for golden_case in golden.cases:
        row, cell = _judge(golden_case, verdict, runtime)
        rows.append(row)
        cells.append(cell)
    said = {key: printable(str(verdict[key])[:100]) for key in ("kernels", "activations")}
    column = Column(
        runtime,
        f"{said['kernels']} kernels, {said['activations']}, on the {runtime} client",
        said["kernels"],
        said["activations"],
        f"{runtime} client",
        LIMITS,
        f"--runtime {runtime}",
    )
    return Report(
        package=str(package),
        reference=str(reference),
        suite="golden",
        seed=0,
        versions={**versions(), runtime: printable(str(verdict["runtime"])[:100])},
        machine=machine(),
        columns=(column,),
        rows=tuple(rows),
        cells=tuple(cells),
    )


def _check_golden(golden: Golden, model: Decoder) -> Outcome:
    """Compare the package's golden logits with the reference's."""
    sampled = torch.tensor(golden.sampled_indices, dtype=torch.long)
    positions, errors = 0, [0.0]
    for case in golden.cases:
        logits = model.score(case.token_ids)[torch.tensor(case.positions)].double()  # (T, V)
        top = logits.gather(1, torch.tensor(case.top_indices))
        errors.append(_largest(torch.tensor(case.top_logits, dtype=torch.double) - top))
        errors.append(
            _largest(torch.tensor(case.sampled_logits, dtype=torch.double) - logits[:, sampled])
        )
        positions += len(logits)
    difference = _difference(positions, float(np.max(errors)))  # NaN stays NaN
    return Outcome(difference, GOLDEN_LIMITS.hold(difference), "")


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0


def _run(folder: Path, runtime: Client, command: str | None) -> dict[str, Any]:
    """Start the client, wait for it and return its verdict."""
    program = PROGRAMS[runtime]
    words = shlex.split(command) if command else [program.command]
    if not words or shutil.which(words[0]) is None:
        raise RuntimeUnavailable(
            f"runtime {runtime}: {words[0] if words else 'the command'} is not found on the PATH; "
            f"build it as {program.source}/README.md says, or give its command with --client"
        )
    logger.info("%s: %s", runtime, " ".join(words))
    try:
        done = subprocess.run(
            [*words, *program.before, str(folder), *program.after],
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeUnavailable(f"runtime {runtime}: no verdict after {TIMEOUT} s") from error
    if done.returncode not in (0, 1):
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        said = (
            printable(lines[-1]) if lines else f"exit code {done.returncode} and nothing on stderr"
        )
        raise RuntimeUnavailable(f"runtime {runtime}: {said}")
    return _verdict(done.stdout, f"runtime {runtime}")


def _verdict(text: bytes, where: str) -> dict[str, Any]:
    """Return the verdict in a client's output; raises ParityError if the output is something
    else.
    """
    none = ParityError(
        f"{where}: found no {FORMAT} document of version {FORMAT_VERSION} on its stdout"
    )
    if len(text) > JSON_LIMIT:
        raise none
    try:
        verdict = parse_json(text, where, ParityError)
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


def _judge(golden: GoldenCase, verdict: Mapping[str, Any], runtime: Client) -> tuple[Row, Cell]:
    """Judge what the client found of one golden case."""
    found = [case for case in verdict["cases"] if case.get("name") == golden.name]
    if len(found) != 1:
        raise ParityError(f"verdict: found {len(found)} cases named {golden.name!r}, expected 1")
    case = found[0]
    equal, positions = case.get("greedy_equal"), case.get("positions")
    if type(equal) is not int or type(positions) is not int:
        raise ParityError(
            f"verdict: case {golden.name!r}: expected integers greedy_equal and positions"
        )
    tokens = len(golden.greedy)
    worst = np.max([_number(case.get("max_abs")), _number(case.get("logsumexp_abs"))])
    difference = _difference(positions, float(worst))
    complete = positions == len(golden.positions) and equal == tokens
    passed = complete and LIMITS.hold(difference) and case.get("passed") is True
    said = printable(str(case.get("note", ""))[:300])
    note = "" if passed else f"{positions} of {len(golden.positions)} positions; {said}"
    description = f"{positions} positions, then {equal} of {tokens} greedy tokens equal"
    row = Row(printable(golden.name[:80]), description)
    state: State = "passed" if passed else "failed"
    return row, Cell(row.name, runtime, state, 0.0, difference, note.strip("; ") or description)


def _number(value: object) -> float:
    """Return a number of a JSON document, and NaN for anything else."""
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else math.nan
    )


def _difference(positions: int, max_abs: float) -> Difference:
    return Difference(positions, max_abs, mean_abs=None, kl=None, top1=None)
