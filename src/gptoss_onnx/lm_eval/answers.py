"""Answers: what a package writes after a prompt, up to a stop text."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gptoss_onnx.offered import RAGGED
from gptoss_onnx.runtime import HarmonyParser, Sampling, Session
from gptoss_onnx.runtime.stops import end_tokens

Ids = Sequence[int]


def answers(
    session: Session,
    prompts: Sequence[Ids],
    sampling: Sampling,
    most: int,
    longest: int,
    batch: int,
) -> Iterator[str]:
    """Yield the answer to each prompt.

    In gpt-oss's chat format it is what the model says to the user: its thoughts are left out, and
    stop texts are not looked for in them.

    Args:
        session: an open package with a tokenizer.
        prompts: token ids, one or more each. Where one leaves no room for `most` tokens, its
            beginning is left out.
        sampling: how tokens are chosen, and the texts that end an answer.
        most: new tokens of an answer.
        longest: tokens of a prompt and its answer.
        batch: prompts that run together, where the package can run such of unlike length.
    """
    most = min(most, longest)
    room = max(1, longest - most + 1)  # the last token is chosen but not run
    cut = [list(prompt[-room:]) for prompt in prompts]
    rows = batch if session.manifest.offers(RAGGED) else 1
    for begin in range(0, len(cut), rows):
        yield from _together(session, cut[begin : begin + rows], sampling, most)


def _together(
    session: Session, prompts: list[list[int]], sampling: Sampling, most: int
) -> Iterator[str]:
    """Answer prompts in one batch."""
    harmony = session.tokenizer.harmony
    is_chat = harmony is not None and any(harmony.start in prompt for prompt in prompts)
    settings = sampling
    if is_chat:
        ends = end_tokens(session.package, session.tokenizer, True, session.vocab)
        settings = replace(sampling, stop=(), stop_tokens=sampling.stop_tokens or ends)
    found: list[list[int]] = [[] for _ in prompts]
    for step in session.generate(prompts, settings, max_new_tokens=most):
        for row, token in enumerate(step):
            if token is not None:
                found[row].append(token)
    for prompt, tokens in zip(prompts, found, strict=True):
        if harmony is not None and harmony.start in prompt:
            yield _said(session, prompt, tokens, sampling.stop)
        else:
            yield _before(session.tokenizer.decode(tokens), sampling.stop)


def _said(session: Session, prompt: list[int], tokens: list[int], stop: tuple[str, ...]) -> str:
    """Return what a conversation's model said to the user."""
    parser = HarmonyParser(session.tokenizer, prompt, stop)
    deltas = [delta for token in tokens for delta in parser.push(token)]
    deltas += parser.finish()
    return "".join(delta.text for delta in deltas if delta.kind == "content")


def _before(text: str, stop: tuple[str, ...]) -> str:
    """Return a text up to the first of the stop texts."""
    ends = [text.find(each) for each in stop if each in text]
    return text[: min(ends)] if ends else text
