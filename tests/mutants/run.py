"""How many mutants `gptoss-onnx validate` kills at its defaults: `python -m mutants.run`.

Options: `--checkpoint FOLDER` makes the mutants of another gpt-oss checkpoint of four layers or
more; `--kind KIND` and `--name NAME` choose some; `--workers N` judges so many at a time;
`--compare` asks the comparison with a fresh export alone, which takes a tenth of the time.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from mutants.bases import Bases
from mutants.judge import Verdict, by_comparison, by_validate, judge_all
from mutants.mutant import KINDS, Mutant
from mutants.table import MUTANTS
from support.idle_threads import idle_threads_sleep

HEAD = ("kind", "mutants", "killed", "named", "compared", "by cases", "diverged right")


def main(words: Sequence[str] | None = None) -> int:
    """Print a line for each mutant and the table by kind; 0 if all were killed and named."""
    arguments = _parse(words)
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    chosen = [mutant for mutant in MUTANTS if _is_chosen(mutant, arguments)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = (
            Bases.of(arguments.checkpoint, folder) if arguments.checkpoint else Bases.small(folder)
        )
        with made as bases, idle_threads_sleep():
            verdicts = {}
            ask = by_comparison if arguments.compare else by_validate
            judged = judge_all([None, *chosen], bases, folder, arguments.workers, ask)
            for mutant, verdict in judged:
                print(line(mutant, verdict), flush=True)
                verdicts[verdict.name] = verdict
    print(table(chosen, verdicts))
    if arguments.json:
        arguments.json.write_text(json.dumps({k: vars(v) for k, v in verdicts.items()}, indent=1))
    healthy = verdicts["healthy"].end == "survived"
    return 0 if healthy and all(verdicts[it.name].names(it) for it in chosen) else 1


def line(mutant: Mutant | None, verdict: Verdict) -> str:
    """Return one mutant's verdict as a line."""
    if mutant is None:
        return f"healthy package: {'passes' if verdict.end == 'survived' else verdict}"
    place = "" if not verdict.is_killed or verdict.names(mutant) else " AT ANOTHER PLACE"
    found = verdict.said or "; ".join(
        (*verdict.compared[:2], *verdict.diverged[:2], *verdict.refused[:1])
    )
    found = found or ", ".join(verdict.cases[:3])
    end = verdict.end if verdict.is_killed else verdict.end.upper()
    cost = f"{len(verdict.cases)} cells, {verdict.seconds:.0f} s"
    return f"{mutant.kind}: {mutant.name}: {end}{place} ({cost}) {found:.150}"


def table(mutants: Sequence[Mutant], verdicts: dict[str, Verdict]) -> str:
    """Return the kill table by kind."""
    rows = [HEAD]
    for kind in (*KINDS, "all"):
        pairs = [(it, verdicts[it.name]) for it in mutants if kind in (it.kind, "all")]
        if pairs:
            rows.append((kind, *map(str, _counted(pairs))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    survivors = [it.name for it in mutants if not verdicts[it.name].is_killed]
    misnamed = [
        it.name for it in mutants if verdicts[it.name].is_killed and not verdicts[it.name].names(it)
    ]
    return "\n".join(
        [*lines, f"survived: {'; '.join(survivors)}", f"at another place: {'; '.join(misnamed)}"]
    )


def _counted(pairs: list[tuple[Mutant, Verdict]]) -> tuple[int, ...]:
    return (
        len(pairs),
        sum(verdict.is_killed for _, verdict in pairs),
        sum(verdict.names(mutant) for mutant, verdict in pairs),
        sum(bool(verdict.compared) for _, verdict in pairs),
        sum(bool(verdict.cases) for _, verdict in pairs),
        sum(any(map(mutant.is_named_by, verdict.diverged)) for mutant, verdict in pairs),
    )


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("mutants.run")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--name", action="append")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(words)


def _is_chosen(mutant: Mutant, arguments: argparse.Namespace) -> bool:
    return (not arguments.kind or mutant.kind in arguments.kind) and (
        not arguments.name or mutant.name in arguments.name
    )


if __name__ == "__main__":
    raise SystemExit(main())
