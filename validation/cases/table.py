"""The parity cases of a run, all of them: each works on a `Setting` and returns an `Outcome`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import onnx

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.check import check_onnx
from gptoss_onnx.offered import BATCHES, RAGGED, REWINDING, SEVERAL
from gptoss_onnx.reference import Checkpoint, Decoder
from gptoss_onnx.reference.rounded import ROUNDINGS, Rounding
from gptoss_onnx.runtime import Package, Sampling, Session
from gptoss_onnx.validation.cases import (
    batches,
    caches,
    chunks,
    driving,
    positions,
    repeats,
    token_ids,
)
from gptoss_onnx.validation.cases.driving import OURS, Drive, DriveFailedError, Pair
from gptoss_onnx.validation.cases.kept import kept_positions
from gptoss_onnx.validation.judging.continuation import judge_continuation
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import Limits, rounding_limits
from gptoss_onnx.validation.judging.metrics import compare
from gptoss_onnx.validation.judging.outcome import Outcome, judge

Suite = Literal["quick", "full"]
GREEDY_TOKENS = {"quick": 64, "full": 256}
CHUNKS = {"quick": 64, "full": 128}  # sizes up to here are all tried
TOKEN_IDS = {"quick": 4096, "full": 8192}  # of a vocabulary no larger, all are run
THREADS = {"quick": (1, 3), "full": (1, 2, 3, 4)}  # opening a session takes the most of it
LONG_SEQUENCE = 2048  # tokens that are run in longer chunks


@dataclass(frozen=True)
class Setting:
    """What every case works on: a session with the reference, what both were made from, and the
    limits of the run.
    """

    drive: Drive
    checkpoint: Checkpoint
    limits: Limits


@dataclass(frozen=True)
class Case:
    """A name, one line that says what is done, the function that does it, and what it needs the
    target to offer.

    `needs` is in the words of `gptoss_onnx.offered`; None if every package can do it.
    """

    name: str
    description: str
    run: Callable[[Setting], Outcome]
    needs: str | None = None


def cases(suite: Suite, setting: Setting) -> Iterator[Case]:
    """Yield the cases of a suite that make sense for this package."""
    yield Case("load", "opened in ONNX Runtime, and passed by onnx.checker", load)
    yield _driven("prefill", "the whole sequence in one call", driving.prefill)
    yield _driven("decode", "one token a call, beyond the window", driving.decode)
    yield from _call_cases(suite, setting)
    yield from _batch_cases()
    yield from _cache_cases(suite)
    yield from _position_cases(suite, setting)
    # the last token is chosen but not run
    count = min(GREEDY_TOKENS[suite], setting.drive.sizes.longest + 1 - greedy_prompt(setting))
    yield Case("greedy", f"{count} tokens, chosen one by one", partial(greedy, count))
    session = setting.drive.session
    for rounded in session.manifest.rounded if isinstance(session, Session) else ():
        if rounded.exact:
            continue
        rounding = ROUNDINGS[rounded.kind]
        description = "the whole sequence in one call, against the checkpoint's own weights"
        yield Case(rounding.name, description, partial(loss, rounding))


def _call_cases(suite: Suite, setting: Setting) -> Iterator[Case]:
    """Yield the cases of single sequences in calls of some size and some kept positions."""
    for size in (7, 64):
        description = f"the sequence in calls of {size} tokens"
        yield _driven(f"chunks of {size}", description, chunks.chunked(size))
    most = CHUNKS[suite]
    description = f"calls of every size from 1 to {most} tokens, and of longer ones"
    yield _driven("every chunk size", description, chunks.every_size(most))
    length = min(LONG_SEQUENCE, setting.drive.sizes.longest)
    if suite == "full" and length > most:
        description = "calls of sizes around powers of two"
        yield _driven("longer chunks", description, chunks.edges(length))
    description = "logits of none, of some positions in any order, and of all"
    yield _driven("kept positions", description, kept_positions)
    count = min(TOKEN_IDS[suite], setting.drive.session.vocab)
    description = f"every token id of {count}, or the ends and some of more"
    yield _driven("token ids", description, token_ids.token_ids(TOKEN_IDS[suite]))
    yield _driven("empty past", "one token with nothing cached", driving.empty_past)


def _batch_cases() -> Iterator[Case]:
    """Yield the cases of several rows."""
    description = "three rows of one length, decoding beyond the window"
    yield _driven("even batch", description, batches.even, BATCHES)
    description = "1 to 8 rows of one length"
    yield _driven("even batches", description, batches.even_batches, BATCHES)
    description = "three rows of different lengths, right-padded, decoding in turns"
    yield _driven("ragged batch", description, batches.ragged, RAGGED)
    description = "1 to 8 rows of different lengths, some without a new token"
    yield _driven("ragged batches", description, batches.ragged_batches, RAGGED)
    description = "three rows that take turns with calls of several tokens"
    yield _driven("ragged chunks", description, batches.ragged_chunks, SEVERAL)


def _cache_cases(suite: Suite) -> Iterator[Case]:
    """Yield what caches go through, and what must be the same again."""
    description = "wrong tokens taken back within the reserve, again and again"
    yield _driven("rewind", description, caches.rewind, REWINDING)
    description = "caches of sizes around powers of two, up to 4096 tokens"
    yield _driven("capacities", description, caches.capacities)
    yield _driven("full cache", "the last slot, then one token too many", caches.full)
    yield _driven("fork", "a cache and its copy go their own ways", caches.forked)
    yield _driven("growing cache", "a full cache is enlarged, twice", caches.grown)
    yield _driven("reset", "a used cache, emptied and used again", caches.reset)
    yield _driven("two caches", "two caches take turns", caches.in_turn)
    description = "buffers full of large numbers at first, or of NaN where no kernel reads them"
    yield _driven("stale slots", description, repeats.stale_slots)
    description = "no key or value is NaN or infinite"
    yield _driven("finite caches", description, repeats.finite_caches)
    yield _driven("same again", "a second run gives the same bits", repeats.repeated)
    counts = THREADS[suite]
    description = f"sessions of {', '.join(map(str, counts))} threads"
    yield _driven("other threads", description, repeats.other_threads(counts))


def _position_cases(suite: Suite, setting: Setting) -> Iterator[Case]:
    """Yield the cases of positions that the sequence does not reach."""
    drive, original = setting.drive, setting.checkpoint.config.scaled_beyond
    if isinstance(drive.session, Session):
        lengths, left_out = positions.late_lengths(drive, original)
    else:
        lengths, left_out = [], OURS
    description = "short runs after a cache full of random keys and values"
    if lengths:
        yield _driven("late positions", description, positions.late(lengths), note=left_out)
    elif left_out:
        yield Case("late positions", description, lambda _: Outcome(None, None, left_out))
    if len(lengths) > 1:
        description = "rows of one batch at those positions"
        yield _driven("late rows", description, positions.late_rows(lengths), RAGGED)
    if suite == "full" and original is not None:
        length = min(original + positions.LAST, drive.sizes.longest)
        description = "past the length from which on a rotary embedding is scaled"
        yield _driven("long context", description, positions.last_of(length))


def _driven(
    name: str,
    description: str,
    run: Callable[[Drive], Pair],
    needs: str | None = None,
    note: str = "",
) -> Case:
    """Return a case that judges the logits of a drive by the limits of the run; `note` says what it
    leaves out.
    """

    def judged(setting: Setting) -> Outcome:
        try:
            outcome = judge(*run(setting.drive), setting.limits)
        except DriveFailedError as error:
            return Outcome(None, False, str(error))
        return replace(outcome, note="; ".join(filter(None, (outcome.note, note))))

    return Case(name, description, judged, needs)


def load(setting: Setting) -> Outcome:
    """Check the graph that the session has opened."""
    package = setting.drive.own.package
    return check_graphs([package.graph], _other_files(setting, package))


def check_graphs(paths: Sequence[Path], note: str = "") -> Outcome:
    """Tell whether onnx.checker passes the ONNX files, with a note if it does."""
    try:
        for path in paths:
            check_onnx(onnx.load(path, load_external_data=False))
    except PackageError as error:  # the checker says it in several lines
        return Outcome(None, False, " ".join(str(error).split()))
    return Outcome(None, True, note)


def _other_files(setting: Setting, package: Package) -> str:
    """Return a note if the weights are not the reference's own files, which explains most
    surprises.
    """
    weights = package.manifest.weights
    if weights.mode == "copy":
        return ""
    linked = [entry for entry in weights.files if entry.origin == "checkpoint"]
    ours = {package.weight_path(entry).stat().st_ino for entry in linked}
    theirs = {path.stat().st_ino for path in setting.checkpoint.files}
    if ours >= theirs:
        return ""
    return "the package's weights are not the files of this reference, but others like them"


def greedy(count: int, setting: Setting) -> Outcome:
    """Let the session choose `count` tokens one by one; they must be the reference's choices."""
    drive = setting.drive
    prompt = drive.sequence[: greedy_prompt(setting)]
    found = list(drive.session.generate(prompt, Sampling(stop_tokens=()), max_new_tokens=count))
    return judge_continuation(found, prompt, drive.expected, setting.limits)


def greedy_prompt(setting: Setting) -> int:
    """Return how many tokens of the sequence "greedy" continues."""
    return max(1, setting.drive.sizes.window // 2)


def loss(rounding: Rounding, setting: Setting) -> Outcome:
    """Measure what rounded weights cost, against the checkpoint's own."""
    own = Expected(
        Decoder.from_checkpoint(setting.checkpoint),
        setting.drive.expected.seed,
        setting.limits.near,
    )
    found, expected = driving.prefill(replace(setting.drive, expected=own))
    difference = compare(found, expected.logits)
    limits = setting.limits.wider(rounding_limits(rounding))
    note = f"against the checkpoint's own weights ({limits})"
    return Outcome(difference, limits.hold(difference), note)
