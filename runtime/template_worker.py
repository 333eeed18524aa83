"""The process that renders chat templates, apart from ours: `python template_worker.py`.

A template is a program by a stranger. Jinja's sandbox keeps it from files and Python's internals,
but not from running for ever or asking for gigabytes, in more ways than an environment could count:
nested loops, macros that call themselves twice, `'a' * 10**10`, `2 ** 10**9`, `'%1000000000d' % 1`,
`x|center(10**9)`, lists that hold themselves twice forty times over and are then written as JSON.
The operating system limits a process in all of them at once.

It reads one JSON document a line and answers each by one line. The first is `{"source": …}`, to
compile; others are `{"given": {…}}`, to render. Answers are `{"text": …}`, or `{"error": kind,
"message": …}`, where the kind is `syntax`, `refused` (by the template), `failed`, `memory` or
`long`.

It is run as a script, not imported as a part of the package, and imports nothing of ours: so it
starts in a tenth of a second.
"""

import json
import resource
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

MEMORY = 768 * 2**20  # bytes of address space
CPU_SECONDS = 2  # for one request, and up to one more
LONGEST_TEXT = 16_000_000  # characters
LONGEST_MESSAGE = 500  # characters of an error


def main() -> None:
    """Answer requests until there are no more. The folders where jinja2 is found are the
    arguments.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.path += sys.argv[1:]
    template: Any = None
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime) + CPU_SECONDS + 1
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        answer: dict[str, str]
        try:
            request = json.loads(line)
            if "source" in request:
                template = compiled(request["source"])
                answer = {"text": ""}
            else:
                answer = {"text": rendered(template, request["given"])}
        except Refusal as refusal:
            answer = {"error": refusal.kind, "message": str(refusal)[:LONGEST_MESSAGE]}
        except MemoryError:
            answer = {"error": "memory", "message": ""}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Refusal(Exception):  # noqa: N818 - an answer rather than an error of this program
    """What goes into an answer instead of a text."""

    def __init__(self, kind: str, message: object) -> None:
        super().__init__(" ".join(str(message).split()))
        self.kind = kind


def compiled(source: str) -> Any:
    """Return the template; raises Refusal if it does not compile."""
    try:
        return _environment().from_string(source)
    except MemoryError:
        raise
    except Exception as error:
        raise Refusal("syntax", f"{error}" or type(error).__name__) from error


def rendered(template: Any, given: Mapping[str, Any]) -> str:
    """Return the text; raises Refusal where the template refuses, fails, or says too much."""
    import jinja2

    pieces: list[str] = []
    length = 0
    try:
        for piece in template.generate(given):
            pieces.append(piece)
            length += len(piece)
            if length > LONGEST_TEXT:
                raise Refusal("long", f"found more than {LONGEST_TEXT} characters")
    except (Refusal, MemoryError):
        raise
    except jinja2.TemplateError as error:
        raise Refusal("refused", error) from error
    except Exception as error:
        raise Refusal("failed", f"{type(error).__name__}: {error}") from error
    return "".join(pieces)


def _environment() -> Any:
    """Return the environment that transformers gives to templates."""
    import jinja2.ext
    import jinja2.nodes
    import jinja2.parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(jinja2.ext.Extension):
        """`{% generation %}…{% endgeneration %}` marks replies for training; here it is its
        content.
        """

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raiser(jinja2.TemplateError)
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raiser(error: type[Exception]) -> Callable[[str], NoReturn]:
    def raise_exception(message: str) -> NoReturn:
        raise error(message)

    return raise_exception


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


if __name__ == "__main__":
    main()
