"""ToolNames: the name of a tool out of the recipient that a model writes."""

import re
from collections.abc import Sequence

LONGEST_NAME = 64
NAMELESS = "unnamed"
_NAMESPACE = "functions."
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
# Words of a header that models write without the space or the control token before them.
_GLUED = ("json", "code", "commentary", "analysis", "final")


class ToolNames:
    """Names of tools as the request offered them."""

    def __init__(self, offered: Sequence[str] = ()) -> None:
        self._offered = frozenset(offered)

    def called(self, recipient: str) -> str:
        """Return the name of the tool that a recipient such as `functions.weather` means.

        Where the name as it stands was not offered, but is with a namespace that the model made up,
        or a word of the header, taken away, that one is meant. Other names are passed on as the
        model wrote them: the caller knows what it does not have. What is no letter of a name is
        left out; a name that has none is `unnamed`.
        """
        name = recipient
        while name.startswith(_NAMESPACE):
            name = name.removeprefix(_NAMESPACE)
        if name in self._offered:
            return name
        # `<|` begins a control token that is spelled in letters.
        name = _NO_NAME.sub("", name.partition("<|")[0])[:LONGEST_NAME]
        candidates = [name, name.rpartition(".")[2]]
        candidates += [name.removesuffix(word) for word in _GLUED]
        meant = next((word for word in candidates if word in self._offered), name)
        return meant.strip(".-") or NAMELESS
