"""Names of responses and their items, as OpenAI's look: a prefix and what nobody can guess."""

import secrets


def new_id(prefix: str) -> str:
    """Return a name such as `resp_…`: whoever knows it may read the response."""
    return f"{prefix}_{secrets.token_hex(24)}"
