"""The errors that wrong input and wrong environments raise: one line each, naming the thing, found
and expected.
"""


class GptOssError(Exception):
    """Base of every error a user can cause; the CLI prints its message as one line and exits with
    2.
    """


class CheckpointError(GptOssError):
    """A checkpoint cannot be read: not gpt-oss, incomplete, of the wrong shape or dtype, or
    damaged.
    """


class PackageError(GptOssError):
    """A package folder cannot be written or opened: missing, unfinished, changed, or of a newer
    format.
    """


class ParityError(GptOssError):
    """A parity run could not be judged, for instance because the reference itself is not finite."""


class InputError(GptOssError, ValueError):
    """A value given to a public function is out of its range: shapes, lengths, token ids, sampling
    settings.
    """


class RuntimeUnavailable(GptOssError):  # noqa: N818 - a state of the machine; the name is public interface
    """What the caller asked for cannot run here: a provider, a kernel set or an optional extra is
    missing.
    """
