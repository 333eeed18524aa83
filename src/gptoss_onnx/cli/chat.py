"""`gptoss-onnx chat`: talk with a package, turn by turn, on one cache."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import extra, is_verbose, say, verbose_option
from gptoss_onnx.cli.interrupts import interruptible
from gptoss_onnx.cli.text_options import (
    reasoning_options,
    refuse_draft,
    sampling,
    sampling_options,
    session_options,
    speculation_options,
    template_variables,
)
from gptoss_onnx.cli.writer import Writer
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.runtime import Conversation
    from gptoss_onnx.runtime.conversation import Answer

HELP = """\
/undo   forget the last message and its answer
/retry  answer the last message again
/clear  forget all but the system's message
/help   this list
/exit   leave; so does the end of the input
A message that begins with / is written with two. Ctrl-C ends an answer."""


@click.command(short_help="Talk with a package.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--system", help="The system's message, before all others.")
@reasoning_options
@click.option(
    "-n",
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="Of each answer.  [default: 256; 4096 for a model that thinks before it answers]",
)
@sampling_options
@speculation_options
@session_options
@verbose_option
def chat(
    package: Path,
    system: str | None,
    reasoning_effort: str | None,
    show_reasoning: bool,
    max_new_tokens: int | None,
    speculate: int,
    draft: Path | None,
    kernels: Kernels,
    activations: Activations,
    provider: Provider,
    threads: int | None,
    **options: Any,
) -> None:
    """Talk with PACKAGE: each line you write is a message, and /help lists the commands.

    Answers go to stdout; all else goes to stderr, so that a script can write the messages and read
    the answers. The conversation stays in one cache: only what is new in it is computed.
    """
    with extra("cpu"):
        from gptoss_onnx.runtime import Conversation, Session, Tokenizer, open_package
        from gptoss_onnx.runtime.stops import end_tokens

    opened = open_package(package)
    tokenizer = Tokenizer.open(opened.folder)
    tokenizer.chat_template  # noqa: B018 - a broken template is reported before the graph is loaded
    settings = sampling(
        options, tokenizer, end_tokens(opened, tokenizer, True, opened.manifest.vocab_size)
    )
    variables = template_variables(tokenizer, reasoning_effort)
    refuse_draft(opened, draft, speculate)
    with ExitStack() as stack:
        how = (kernels, activations, provider, threads)
        session = stack.enter_context(Session.open(package, *how))
        other = None if draft is None else stack.enter_context(Session.open(draft, *how))
        conversation = Conversation(
            session,
            settings,
            system=system,
            max_new_tokens=max_new_tokens,
            variables=variables,
            tokenizer=tokenizer,
            speculate=speculate,
            draft=other,
        )
        _Talk(stack.enter_context(conversation), show_reasoning).run()


class _Talk:
    """Reads lines and answers them until one says /exit or there are no more."""

    def __init__(self, conversation: "Conversation", show_reasoning: bool) -> None:
        self._conversation, self._show_reasoning = conversation, show_reasoning
        self._is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
        self._commands: dict[str, Callable[[], None]] = {
            "/undo": self._undo,
            "/retry": lambda: self._answer(self._conversation.retry),
            "/clear": self._clear,
            "/help": lambda: _note(HELP),
        }

    def run(self) -> None:
        if self._is_terminal:
            _load_line_editing()
            _note("/help lists the commands")
        while (line := self._read()) not in (None, "/exit", "/quit"):
            assert line is not None
            try:
                self._obey(line)
            except InputError as error:  # of this message; the conversation goes on without it
                _note(f"error: {error}")

    def _obey(self, line: str) -> None:
        if not line.strip():
            return
        if line.startswith("/") and not line.startswith("//"):
            command = self._commands.get(line.strip())
            if command is None:
                raise InputError(f"{line.split()[0]}: found no such command; /help lists them")
            command()
        else:
            message = line[1:] if line.startswith("//") else line
            self._answer(lambda: self._conversation.ask(message))

    def _read(self) -> str | None:
        """Return the next line; None at the end."""
        if not self._is_terminal:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        try:
            return input("> ")
        except EOFError:
            return None
        except KeyboardInterrupt:
            _note("\nCtrl-D or /exit leaves")
            return ""

    def _answer(self, ask: Callable[[], "Answer"]) -> None:
        writer = Writer(show_reasoning=self._show_reasoning)
        answer: Answer | None = None
        try:
            answer = ask()
            for piece in interruptible(answer):
                writer.piece(piece)
            writer.finish()
        except KeyboardInterrupt:
            writer.finish()
            if answer is None:
                _note("interrupted")
                return
            answer.close()
            kept = "what was said is kept" if answer.content else "it and the message are forgotten"
            _note(f"interrupted; {kept}")
            return
        self._tell(answer)

    def _tell(self, answer: "Answer") -> None:
        """Say how an answer ended and, on a terminal or with --verbose, how fast it was."""
        count, generation = len(answer.tokens), answer.generation
        if answer.finish_reason == "length":
            _note(
                f"cut off after {count} tokens: that many are allowed (--max-new-tokens), or fit "
                "into the model"
            )
        if is_verbose() or sys.stderr.isatty():
            seconds = generation.prefill_seconds + generation.decode_seconds
            cached = f"{self._conversation.reused} of {len(answer.prompt)} prompt tokens"
            _note(f"({count} tokens in {seconds:.2f} s; {cached} were in the cache)")

    def _undo(self) -> None:
        _note(f"forgotten: {self._conversation.undo()}")

    def _clear(self) -> None:
        self._conversation.clear()
        _note("forgotten: all messages")


def _note(text: str) -> None:
    """Say something that is not an answer."""
    say(text, err=True)


def _load_line_editing() -> None:
    """Give the lines editing and a history, if Python has readline."""
    try:
        import readline  # noqa: F401 - importing it is all
    except ImportError:
        return
