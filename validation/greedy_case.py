"""The long greedy continuation: the package must choose the tokens the reference chooses."""

from gptoss_onnx.runtime import Sampling
from gptoss_onnx.validation.cases import Setting
from gptoss_onnx.validation.limits import Limits

# logits; where no largest error is set, a choice the reference prefers by more is a wrong one
LARGEST_TIE = 0.5


def greedy_agreement(setting: Setting, count: int, limits: Limits) -> tuple[bool, str]:
    """Return whether both greedy continuations agree token for token, and a note about the first
    that does not.

    Where the reference's two largest logits are closer than twice the allowed error, either choice
    is right; from such a position on the texts may part, and the comparison ends there.
    """
    prompt = setting.sequence[: max(1, setting.window // 2)]
    expected = setting.expected.greedy(prompt, count)
    found = list(setting.session.generate(prompt, Sampling(stop_tokens=()), max_new_tokens=count))
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours != theirs:
            logits = setting.expected.last([*prompt, *expected[:step]])[0]
            margin = float(logits[theirs] - logits[ours])
            tie = margin <= 2 * min(limits.max_abs, LARGEST_TIE)
            verdict = (
                "a tie within the limits; not compared further"
                if tie
                else f"the reference prefers its own by {margin:.2g}"
            )
            return tie, f"token {step} of {count} is {ours}, the reference's is {theirs}: {verdict}"
    return True, f"{count} tokens equal"
