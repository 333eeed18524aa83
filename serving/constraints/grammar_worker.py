"""The process that tries a stranger's schema, apart from ours: `python grammar_worker.py FOLDER`.

A schema is a program for its compiler: patterns whose intersection has millions of states,
multiples of a million, a thousand times a thousand of a letter. llguidance limits most of it, but
not all, and what goes on for minutes there cannot be stopped from within. The operating system
limits a process. What this one has compiled in time, the server compiles again for itself.

It reads one JSON document a line, `{"grammars": […], "limits": {…}}`, and answers each by one line,
`{"error": …}`, which is empty where all is well.

It is run as a script, not imported as a part of the package, and imports nothing of ours: so it
starts in a tenth of a second.
"""

import json
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

MEMORY = 768 * 2**20  # bytes of address space
CPU_SECONDS = 1.0  # for one request
LONGEST_MESSAGE = 500  # characters of an error
STEPS = 12  # tokens into a text: what a pattern costs, it costs at its beginning


class ByteTokenizer:
    """A tokenizer whose tokens are the bytes, as llguidance wants one. What a schema costs to
    compile hardly depends on the tokenizer.
    """

    is_tokenizer_wrapper = True
    tokens = (*(bytes([value]) for value in range(256)), b"\xff<|end|>")
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text."""
        return list(text.encode() if isinstance(text, str) else text)


def main() -> None:
    """Answer requests until there are no more. The folder of llguidance is the argument."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.path += sys.argv[1:]
    import llguidance

    tokens = llguidance.LLTokenizer(ByteTokenizer())  # type: ignore[arg-type]  # a look-alike
    for line in sys.stdin.buffer:
        # Its signal, which nobody handles, ends the process; RLIMIT_CPU knows whole seconds only.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        request = json.loads(line)
        errors = (problem(tokens, each, request["limits"]) for each in request["grammars"])
        error = next(filter(None, errors), "")
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps({"error": error[:LONGEST_MESSAGE]}) + "\n")
        sys.stdout.flush()


def problem(tokens: Any, grammar: str, limits: Mapping[str, Any]) -> str:
    """Return why a grammar does not compile or goes wrong at once; empty where it does neither."""
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(tokens, grammar, log_level=0, limits=LLParserLimits(**limits))
    for _ in range(STEPS):
        mask = matcher.compute_logit_bias()
        token = next((id_ for id_, allowed in enumerate(mask[:256]) if allowed), None)
        if token is None or matcher.is_error() or not matcher.consume_token(token):
            break
    return str(matcher.get_error())


if __name__ == "__main__":
    main()
