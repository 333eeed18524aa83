"""What the tokenizers library, written in Rust, does with files it did not expect: it panics."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.json_text import printable

_PANIC = "PanicException"
_LONGEST = 300  # characters of a foreign message that are worth reading
_redirecting = threading.Lock()


@contextmanager
def foreign_errors(what: str, advice: str, error: type[GptOssError]) -> Iterator[None]:
    """Turn every exception of the library into one of ours, a panic among them.

    A panic is a BaseException, so that `except Exception` does not see it; others of those, such as
    KeyboardInterrupt, pass.
    """
    try:
        yield
    except GptOssError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != _PANIC:
            raise
        reason = printable(" ".join(str(problem).split()))[:_LONGEST]
        raise error(f"{what} ({reason or type(problem).__name__}); {advice}") from problem


@contextmanager
def quiet_panics() -> Iterator[None]:
    """Keep from stderr what the library writes there before it panics, often a hundred lines.

    It writes to the file descriptor, so that is what is turned elsewhere meanwhile. What others
    write in that time comes out afterwards, unless there was a panic. For short sections: all
    threads share the descriptor.
    """
    with _redirecting:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nothing to keep quiet
            yield
            return
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            panicked = False
            try:
                yield
            except BaseException as problem:
                panicked = type(problem).__name__ == _PANIC
                raise
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(kept, 2)
                os.close(kept)
                file.seek(0)
                written = file.read()
                if written and not panicked:
                    os.write(2, written)
