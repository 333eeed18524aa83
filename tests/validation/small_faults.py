"""Which small true faults the logits show: print each one's error beside what is allowed.

PYTHONPATH=tests .venv/bin/python tests/validation/small_faults.py CHECKPOINT PACKAGE
"""

import sys

from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import EXACT, exact_limits
from gptoss_onnx.validation.judging.outcome import judge
from support.small_faults import FAULTS

TOKENS = 120


def main(checkpoint_folder: str, package_folder: str) -> None:
    """Compare a package with references that have one fault each, and with the right one."""
    with open_checkpoint(checkpoint_folder) as checkpoint, Session.open(package_folder) as session:
        for name, fault in {"none": lambda model: None, **FAULTS}.items():
            model = Decoder.from_checkpoint(checkpoint)
            fault(model)
            expected = Expected(model, seed=1)
            tokens = expected.tokens(TOKENS)
            scale, vocabulary = expected.scale(tokens), model.config.vocab_size
            limits = exact_limits(expected.errors, scale, vocabulary)
            found, scored = session.score(tokens, chunk=TOKENS), expected.score(tokens)
            outcome, before = judge(found, scored, limits), judge(found, scored, EXACT)
            print(
                f"{name:30} max abs {outcome.difference.max_abs:.1e} "
                f"(allowed {limits.max_abs:.1e}), KL {outcome.difference.kl:.1e} "
                f"(allowed {limits.kl:.1e}): {'passes' if outcome.passed else 'FAILS'}; "
                f"at {EXACT.max_abs:g} it {'passes' if before.passed else 'FAILS'}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
