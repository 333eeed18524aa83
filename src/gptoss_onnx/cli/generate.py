"""`gptoss-onnx generate`: continue a prompt with a package, as text or token ids, while they
come.
"""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import extra, is_verbose, print_json, verbose_option
from gptoss_onnx.cli.interrupts import interruptible
from gptoss_onnx.cli.prompt_options import (
    check_flags,
    check_length,
    check_one,
    open_tokenizer,
    prompt_of,
    token_ids,
)
from gptoss_onnx.cli.text_options import (
    read_prompt,
    reasoning_options,
    refuse_draft,
    sampling,
    sampling_options,
    session_options,
    speculation_options,
)
from gptoss_onnx.cli.writer import Answer, Writer

if TYPE_CHECKING:
    from gptoss_onnx.runtime import (
        Generation,
        KVCache,
        Prompt,
        Sampling,
        Session,
        TextGeneration,
        Tokenizer,
    )
    from gptoss_onnx.runtime.prompt_cache import PromptCache

NEW_TOKENS = 128  # of a text; an answer that begins with thoughts gets more


@click.command(short_help="Continue a prompt with a package.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", help="Text to continue, as it is.")
@click.option(
    "--prompt-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File with the text to continue, all of it; - is stdin.",
)
@click.option(
    "--prompt-tokens",
    metavar="IDS",
    callback=token_ids,
    help="Token ids to continue, such as 1,2,3.",
)
@click.option(
    "--chat", is_flag=True, help="Take the prompt for a user's message and apply the chat template."
)
@click.option("--system", help="With --chat: the system's message.")
@reasoning_options
@click.option(
    "-n",
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="[default: 128; with --chat 4096 for a model that thinks before it answers]",
)
@sampling_options
@speculation_options
@click.option(
    "--prompt-cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep what the prompt computes in FILE; a prompt that begins alike takes it from there.",
)
@session_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print tokens, text, finish reason and timings at the end.",
)
@verbose_option
def generate(
    package: Path,
    prompt: str | None,
    prompt_file: Path | None,
    prompt_tokens: tuple[int, ...] | None,
    chat: bool,
    system: str | None,
    reasoning_effort: str | None,
    show_reasoning: bool,
    max_new_tokens: int | None,
    speculate: int,
    draft: Path | None,
    prompt_cache: Path | None,
    kernels: Kernels,
    activations: Activations,
    provider: Provider,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue a prompt with PACKAGE and print what comes.

    The text goes to stdout, token by token. With --chat only the answer does; what the model thinks
    goes to stderr. Timings go to stderr if it is a terminal, or with --verbose.
    """
    if prompt_file is not None:
        check_one(prompt, prompt_tokens, prompt_file)
        prompt = read_prompt(prompt_file)
    check_flags(prompt, prompt_tokens, chat, system, reasoning_effort)
    with extra("cpu"):
        from gptoss_onnx.runtime import Session, open_package
        from gptoss_onnx.runtime.prompt_cache import PromptCache
        from gptoss_onnx.runtime.stops import end_tokens

    # mistakes that show without the graph are reported before it is loaded
    opened = open_package(package)
    tokenizer = open_tokenizer(opened, needed=prompt is not None or bool(options["stop"]))
    continued = prompt_of(tokenizer, prompt, prompt_tokens, system, reasoning_effort, chat)
    ends = end_tokens(opened, tokenizer, chat, opened.manifest.vocab_size)
    settings = sampling(options, tokenizer, ends)
    check_length(opened, continued)
    refuse_draft(opened, draft, speculate)
    kept = None if prompt_cache is None else PromptCache.open(prompt_cache, opened, activations)
    begin = time.perf_counter()
    with ExitStack() as stack:
        how = (kernels, activations, provider, threads)
        session = stack.enter_context(Session.open(package, *how))
        other = None if draft is None else stack.enter_context(Session.open(draft, *how))
        load_seconds = time.perf_counter() - begin
        writer = Writer(quiet=as_json, show_reasoning=show_reasoning)
        run = _Run(session, continued, settings, max_new_tokens, speculate, other, kept)
        said, answer = run.ids(writer) if tokenizer is None else run.text(tokenizer, writer)
        _report(session, replace(answer, load_seconds=load_seconds), said, as_json)


@dataclass(frozen=True)
class _Run:
    """One generation, as the options say."""

    session: "Session"
    prompt: "Prompt"
    settings: "Sampling"
    max_new_tokens: int | None
    speculate: int
    draft: "Session | None"
    kept: "PromptCache | None"

    def text(self, tokenizer: "Tokenizer", writer: Writer) -> tuple[dict[str, Any], Answer]:
        """Print a text or an answer; returns what was said and how it went."""
        from gptoss_onnx.runtime.text_generation import stream_text

        text: TextGeneration[Any]
        with stream_text(
            self.session,
            self.prompt,
            tokenizer,
            self.settings,
            self.max_new_tokens,
            self._cache(),
            text_tokens=NEW_TOKENS,
            cached=self._held,
            speculate=self.speculate,
            draft=self.draft,
        ) as text:
            for piece in interruptible(text):
                writer.piece(piece)
            writer.finish()
        said: dict[str, Any] = {"text": writer.text}
        if self.prompt.is_chat:
            calls = [message for message in text.messages if message.kind == "tool_call"]
            said |= {
                "content": writer.text,
                "reasoning": writer.reasoning,
                "tool_calls": [
                    {"recipient": call.recipient, "arguments": call.text} for call in calls
                ],
            }
        return said, self._answer(text)

    def ids(self, writer: Writer) -> tuple[dict[str, Any], Answer]:
        """Print the ids of a package that has no tokenizer."""
        from gptoss_onnx.runtime.stops import warn_endless

        with self.session.generate(
            self.prompt.ids[self._held :],
            self.settings,
            max_new_tokens=self.max_new_tokens or NEW_TOKENS,
            cache=self._cache(),
            speculate=self.speculate,
            draft=self.draft,
        ) as generation:
            if generation.endless and self.max_new_tokens is None:
                warn_endless(self.session.package.folder)
            for token in interruptible(generation):
                writer.token(token)
            writer.finish()
            return {"text": None}, self._answer(generation)

    @property
    def _held(self) -> int:
        """Tokens of the prompt that the cache holds before the generation begins."""
        return 0 if self.kept is None else len(self.prompt.ids) - 1

    def _cache(self) -> "KVCache | None":
        """Return a cache with all of the prompt but its last token, where a file keeps it."""
        from gptoss_onnx.runtime.text_generation import CHAT_TOKENS

        if self.kept is None:
            return None
        most = CHAT_TOKENS if self.prompt.is_chat else NEW_TOKENS
        return self.kept.read(self.session, self.prompt.ids, self.max_new_tokens or most)

    def _answer(self, generation: "Generation[int] | TextGeneration[Any]") -> Answer:
        answer = Answer.of(generation, len(self.prompt.ids), 0.0)
        if self.kept is None:
            return answer
        seconds = answer.prefill_seconds + self.kept.seconds
        return replace(answer, prefill_seconds=seconds, cached_tokens=self.kept.cached)


def _report(session: "Session", answer: Answer, said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        ran = {
            "activations": session.activations,
            "kernels": session.kernels,
            "provider": session.provider,
        }
        print_json(answer.to_json(said) | ran)
    if is_verbose() or (sys.stderr.isatty() and not as_json):
        click.echo(
            f"{answer.summary()}; {session.kernels} kernels, {session.activations}, "
            f"{session.provider}",
            err=True,
        )
