"""Programs that crash, hang, print rubbish or never stop printing: each ends in one line."""

import sys
import time
from pathlib import Path

import pytest

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.validation.columns.process import Program

LIMIT = 1_000_000
SOON = 30.0  # seconds that nothing here comes near


def words(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_reads_and_answers_more_than_a_pipe_holds() -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
    given = b"ab" * 200_000
    with Program(words(code)) as program:
        done = program.finish(given, SOON, LIMIT)
    assert (done.code, done.output) == (0, given[::-1])


def test_it_has_the_variables_of_this_process_and_those_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ['OURS'], os.environ['THEIRS'])"
    with Program(words(code), {"THEIRS": "2"}) as program:
        assert program.finish(b"", SOON, LIMIT).output == b"1 2\n"


def test_the_last_line_on_stderr_says_why_it_ended() -> None:
    code = "import sys; print('first\\n' * 9999 + '\\x1b[31mlast\\n', file=sys.stderr); sys.exit(3)"
    with Program(words(code)) as program:
        done = program.finish(b"", SOON, LIMIT)
    assert done.code == 3
    assert done.last_words() == r"\x1b[31mlast"


def test_what_is_said_after_stdout_has_ended_counts() -> None:
    code = "import os, sys, time; os.close(1); time.sleep(0.1); print('late', file=sys.stderr)"
    with Program(words(code)) as program:
        assert program.finish(b"", SOON, LIMIT).last_words() == "late"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "signal SIGSEGV, silently"),
        ("raise SystemExit(7)", "exit code 7, silently"),
    ],
)
def test_a_silent_end_is_named(code: str, said: str) -> None:
    with Program(words(code)) as program:
        assert program.finish(b"", SOON, LIMIT).last_words() == said


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
        # a child that keeps the pipe open when its parent has gone
        "import os, time\nif os.fork(): os._exit(0)\ntime.sleep(600)",
    ],
)
def test_a_program_that_hangs_is_ended_in_time(code: str) -> None:
    begin = time.monotonic()
    said = r"no (answer|end) after 0.5 s"
    with Program(words(code)) as program, pytest.raises(RuntimeUnavailable, match=said):
        program.finish(b"", 0.5, LIMIT)
    assert time.monotonic() - begin < SOON


def test_a_program_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 100_000)"
    said = f"it printed more than {LIMIT} bytes"
    with Program(words(code)) as program, pytest.raises(RuntimeUnavailable, match=said):
        program.finish(b"", SOON, LIMIT)


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    touches = (
        f"import pathlib, time\nwhile True: pathlib.Path({str(mark)!r}).touch(); time.sleep(0.05)"
    )
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {touches!r}])\n"
        "time.sleep(600)\n"
    )
    with Program(words(code)) as program, pytest.raises(RuntimeUnavailable, match="no answer"):
        program.finish(b"", 2.0, LIMIT)
    assert mark.exists()
    mark.unlink()
    time.sleep(0.3)
    assert not mark.exists()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeUnavailable, match="no-such-program: cannot be started"):
        Program(["no-such-program"])


ECHO = """
import sys
while head := sys.stdin.buffer.read(8):
    body = sys.stdin.buffer.read(int.from_bytes(head, "little"))
    sys.stdout.buffer.write(head + body[::-1])
    sys.stdout.buffer.flush()
"""


def test_messages_are_answered_one_by_one() -> None:
    with Program(words(ECHO)) as program:
        for given in (b"abc", b"x" * 300_000, b"z"):
            assert program.answer(given, SOON, LIMIT) == given[::-1]


def test_a_message_that_announces_too_much_is_refused() -> None:
    code = "import sys; sys.stdout.buffer.write(b'\\xff' * 8); sys.stdout.flush(); input()"
    with Program(words(code)) as program:
        with pytest.raises(RuntimeUnavailable, match=f"it printed more than {LIMIT} bytes"):
            program.answer(b"", SOON, LIMIT)
        with pytest.raises(RuntimeUnavailable, match="its process was ended before"):
            program.answer(b"again", SOON, LIMIT)


def test_an_end_instead_of_an_answer_is_named() -> None:
    code = "import sys; print('out of tea', file=sys.stderr); sys.exit(4)"
    with (
        Program(words(code)) as program,
        pytest.raises(RuntimeUnavailable, match=r"its process ended \(exit code 4\): out of tea"),
    ):
        program.answer(b"please", SOON, LIMIT)
