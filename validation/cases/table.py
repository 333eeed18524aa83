"""The parity cases of a run, all of them: each works on a `Setting` and returns an `Outcome`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import onnx

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.check import check_onnx
from gptoss_onnx.offered import RAGGED, REWINDING, SEVERAL
from gptoss_onnx.reference import Checkpoint, Decoder
from gptoss_onnx.reference.rounded import ROUNDINGS, Rounding
from gptoss_onnx.runtime import Sampling
from gptoss_onnx.validation.cases import driving
from gptoss_onnx.validation.cases.driving import LAST, Drive, Pair
from gptoss_onnx.validation.judging.continuation import judge_continuation
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import Limits, rounding_limits
from gptoss_onnx.validation.judging.metrics import compare
from gptoss_onnx.validation.judging.outcome import Outcome, judge

Suite = Literal["quick", "full"]
GREEDY_TOKENS = {"quick": 64, "full": 256}


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

    `needs` is in the words of `Manifest.unsupported`; None if every target can do it.
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
    for size in (7, 64):
        description = f"the sequence in calls of {size} tokens"
        yield _driven(f"chunks of {size}", description, driving.chunked(size))
    description = "three rows of one length, decoding beyond the window"
    yield _driven("even batch", description, driving.even)
    description = "three rows of different lengths, right-padded, decoding in turns"
    yield _driven("ragged batch", description, driving.ragged, RAGGED)
    description = "three rows that take turns with calls of several tokens"
    yield _driven("ragged chunks", description, driving.ragged_chunks, SEVERAL)
    description = "wrong tokens taken back within the reserve, again and again"
    yield _driven("rewind", description, driving.rewind, REWINDING)
    yield _driven("empty past", "one token with nothing cached", driving.empty_past)
    sizes = setting.drive.sizes
    original = setting.checkpoint.config.scaled_beyond
    if suite == "full" and original is not None:
        length = min(original + LAST, sizes.longest)
        description = "past the length from which on a rotary embedding is scaled"
        yield _driven("long context", description, driving.last_of(length))
    # the last token is chosen but not run
    count = min(GREEDY_TOKENS[suite], sizes.longest + 1 - greedy_prompt(setting))
    yield Case("greedy", f"{count} tokens, chosen one by one", partial(greedy, count))
    for rounded in setting.drive.session.manifest.rounded:
        rounding = ROUNDINGS[rounded.kind]
        description = "the whole sequence in one call, against the checkpoint's own weights"
        yield Case(rounding.name, description, partial(loss, rounding))


def _driven(
    name: str, description: str, run: Callable[[Drive], Pair], needs: str | None = None
) -> Case:
    """Return a case that judges the logits of a drive by the limits of the run."""
    return Case(
        name, description, lambda setting: judge(*run(setting.drive), setting.limits), needs
    )


def load(setting: Setting) -> Outcome:
    """Check the graph that the session has opened."""
    try:
        path = setting.drive.session.package.graph
        check_onnx(onnx.load(path, load_external_data=False))
    except PackageError as error:
        return Outcome(None, False, str(error))
    return Outcome(None, True, _other_files(setting))


def _other_files(setting: Setting) -> str:
    """Return a note if the weights are not the reference's own files, which explains most
    surprises.
    """
    package = setting.drive.session.package
    weights = package.manifest.weights
    if weights.mode == "copy":
        return ""
    linked = [entry for entry in weights.files if entry.origin == "checkpoint"]
    ours = {package.weight_path(entry).stat().st_ino for entry in linked}
    theirs = {path.stat().st_ino for path in setting.checkpoint.files}
    if ours == theirs:
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
