"""What the parity cases work on: a session of a package beside the reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptoss_onnx.choices import Kernels
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.driving import Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Case, Setting, Suite, cases
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import limits_for
from gptoss_onnx.validation.pair import reference_model
from gptoss_onnx.validation.run import SEED


@contextmanager
def parity_setting(package: Path, checkpoint: Path, kernels: Kernels = "auto") -> Iterator[Setting]:
    """Open both, as `validate` does."""
    with open_checkpoint(checkpoint) as opened, Session.open(package, kernels) as session:
        limits = limits_for(session.manifest, "exact")
        expected = Expected(reference_model(session.package, opened), SEED, limits.near)
        sizes = Sizes.of(opened.config.windows, opened.config.longest)
        drive = Drive(session, expected, sizes, expected.tokens(sizes.length))
        yield Setting(drive, opened, limits)


def case_named(name: str, setting: Setting, suite: Suite = "quick") -> Case:
    """Return one case of a suite."""
    return next(case for case in cases(suite, setting) if case.name == name)
