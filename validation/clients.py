"""`validate --runtime cpp|node|browser`: a client in another language verifies a package, and its verdict is judged.

The client compares with the package's golden vectors and prints what it found (clients/README.md says how). Here these
vectors are compared with the reference first, so that a package cannot vouch for itself; then the numbers of the
verdict are judged, not its word.
"""

import json
import logging
import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gptoss_onnx.errors import InputError, PackageError, ParityError, RuntimeUnavailable
from gptoss_onnx.exporter.golden import FILE, FOLDER
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference import GptOss, open_checkpoint
from gptoss_onnx.validation.limits import Limits
from gptoss_onnx.validation.metrics import Difference
from gptoss_onnx.validation.pair import check_pair, reference_model
from gptoss_onnx.validation.report import CaseResult, Report

Client = Literal["cpp", "node", "browser"]
FORMAT, FORMAT_VERSION = "gptoss-onnx-verdict", 1
LIMITS = Limits(max_abs=1e-3, kl=math.inf, top1=0.0)  # a verdict holds the largest error alone
# The same float32 sums in another order, as another machine or number of threads makes them.
GOLDEN_LIMITS = Limits(max_abs=1e-4, kl=math.inf, top1=0.0)
TIMEOUT = 3600  # seconds; a large package in a browser takes its time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """How a client is started: its command, what comes before and after the package, and where it comes from."""

    command: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str


PROGRAMS: Mapping[str, Program] = {
    "cpp": Program("gptoss-generate", (), ("--verify", "--json"), "clients/cpp"),
    "node": Program("gptoss-node", ("verify",), (), "clients/node"),
    "browser": Program("gptoss-browser", ("verify",), (), "clients/browser"),
}


def validate_client(package: str | Path, reference: str | Path, runtime: Client, command: str | None = None) -> Report:
    """Let a client verify a package, and judge its verdict.

    Args:
        package: the package folder, with golden vectors.
        reference: the checkpoint it was exported from: a folder or a hub id.
        runtime: `cpp`, `node` or `browser`.
        command: what starts the client, arguments included; omitted means its program's name, found on the PATH.

    Raises:
        InputError: no such runtime, or a package that golden vectors cannot judge, because its cache is narrower.
        PackageError: the package has no golden vectors.
        ParityError: the package is of another model, or the client printed no verdict of every golden case.
        RuntimeUnavailable: the client cannot be started, or says that it cannot run.
    """
    if runtime not in PROGRAMS:
        raise InputError(f"runtime: found {runtime!r}, expected one of {', '.join(PROGRAMS)}")
    folder = Path(package)
    manifest = Manifest.read(folder)
    if manifest.kv_dtype != "float32":
        raise InputError(
            f"{folder}: its cache is {manifest.kv_dtype}; golden vectors judge packages with a float32 cache: "
            "export with --kv-dtype float32, or validate without --runtime"
        )
    golden = _read_golden(folder)
    with open_checkpoint(reference) as checkpoint:
        check_pair(manifest, checkpoint, folder)
        cases = [_check_golden(golden, reference_model(manifest, checkpoint, folder))]
    verdict = _run(folder, runtime, command)
    cases += [_judge(golden_case, verdict) for golden_case in golden["cases"]]
    return Report(
        package=str(package),
        reference=str(reference),
        suite="golden",
        kernels=str(verdict["kernels"]),
        activations=str(verdict["activations"]),
        provider=f"{runtime} client",
        versions={runtime: str(verdict["runtime"])},
        limits=LIMITS,
        cases=tuple(cases),
    )


def _read_golden(folder: Path) -> dict[str, Any]:
    path = folder / FOLDER / FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{path}: not found; write it with `gptoss-onnx validate --write-golden`") from error
    except ValueError as error:
        raise PackageError(f"{path}: not JSON; delete the folder and write it with --write-golden") from error
    return document


def _check_golden(golden: Mapping[str, Any], model: GptOss) -> CaseResult:
    """Compare the package's golden logits with the reference's."""
    begin = time.perf_counter()
    sampled = torch.tensor(golden["sampled_indices"])
    positions, errors = 0, [0.0]
    for case in golden["cases"]:
        logits = model.score(case["token_ids"])[torch.tensor(case["positions"])].double()  # (T, V)
        recorded = torch.tensor(case["top_logits"]).double() - logits.gather(1, torch.tensor(case["top_indices"]))
        errors.append(float(recorded.abs().max()))
        errors.append(float((torch.tensor(case["sampled_logits"]).double() - logits[:, sampled]).abs().max()))
        positions += len(logits)
    difference = _difference(positions, float(np.max(errors)))  # NaN stays NaN
    seconds = time.perf_counter() - begin
    description = "the package's golden vectors against the reference"
    return CaseResult("golden vectors", description, GOLDEN_LIMITS.hold(difference), seconds, difference, "")


def _run(folder: Path, runtime: Client, command: str | None) -> dict[str, Any]:
    """Start the client and return its verdict, once it is one of this package's kind."""
    program = PROGRAMS[runtime]
    words = shlex.split(command) if command else [program.command]
    if not words or shutil.which(words[0]) is None:
        raise RuntimeUnavailable(
            f"runtime {runtime}: {words[0] if words else 'the command'} is not found on the PATH; build it as "
            f"{program.source}/README.md says, or give its command with --client"
        )
    logger.info("%s: %s", runtime, " ".join(words))
    done = subprocess.run(
        [*words, *program.before, str(folder), *program.after],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode not in (0, 1):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit code {done.returncode} and nothing on stderr"
        raise RuntimeUnavailable(f"runtime {runtime}: {said}")
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)
        if (verdict["format"], verdict["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(verdict["format"])
        _ = verdict["kernels"], verdict["activations"], verdict["runtime"], verdict["cases"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParityError(f"runtime {runtime}: found no {FORMAT} document of version 1 on its stdout") from error
    return verdict


def _judge(golden: Mapping[str, Any], verdict: Mapping[str, Any]) -> CaseResult:
    """Judge what the client found of one golden case."""
    found = [case for case in verdict["cases"] if case.get("name") == golden["name"]]
    if len(found) != 1:
        raise ParityError(f"verdict: found {len(found)} cases named {golden['name']!r}, expected 1")
    case = found[0]
    equal, tokens = case["greedy_equal"], len(golden["greedy"])
    worst = np.max([_number(case["max_abs"]), _number(case["logsumexp_abs"])])
    difference = _difference(int(case["positions"]), float(worst))
    complete = difference.positions == len(golden["positions"]) and equal == tokens
    passed = complete and LIMITS.hold(difference) and case["passed"] is True
    note = "" if passed else f"{difference.positions} of {len(golden['positions'])} positions; {case.get('note', '')}"
    description = f"{difference.positions} positions, then {equal} of {tokens} greedy tokens equal"
    return CaseResult(golden["name"], description, passed, 0.0, difference, note.strip("; ") or description)


def _number(value: object) -> float:
    """A number of a JSON document; JSON has no NaN, so whatever else stands there is one."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _difference(positions: int, max_abs: float) -> Difference:
    return Difference(positions, max_abs, mean_abs=None, kl=None, top1=None)
