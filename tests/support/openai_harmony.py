"""OpenAI's own parser of harmony, run as a script: `python openai_harmony.py FOLDER <
token-ids.json > messages.json`.

FOLDER holds `harmony` (openai-harmony, installed by tests/clients/published.sh) and `tokenizer`.
stdin is a list of answers, each a list of token ids; stdout a list of lists of [channel, recipient,
content type, text], or null where it refuses one.
"""

import base64
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder / "harmony"))
    with tempfile.TemporaryDirectory() as encodings:
        write_vocabulary(folder / "tokenizer" / "tokenizer.json", Path(encodings))
        os.environ["TIKTOKEN_ENCODINGS_BASE"] = encodings  # else it downloads the vocabulary
        import openai_harmony as harmony  # type: ignore[import-not-found]  # lies in FOLDER

        encoding = harmony.load_harmony_encoding("HarmonyGptOss")

        def parsed(ids: list[int]) -> list[list[str | None]] | None:
            try:
                messages = encoding.parse_messages_from_completion_tokens(
                    ids, harmony.Role.ASSISTANT
                )
            except harmony.HarmonyError:
                return None
            return [
                [m.channel, m.recipient, m.content_type, "".join(c.text for c in m.content)]
                for m in messages
            ]

        document: Any = [parsed(ids) for ids in json.load(sys.stdin)]
        json.dump(document, sys.stdout)


def write_vocabulary(tokenizer: Path, folder: Path) -> None:
    """Write the words of a tokenizer.json as tiktoken reads them: each in base64, and its id."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    # GPT-2's table: bytes that cannot be printed stand at 256 and above.
    bytes_of = {chr(byte): byte for byte in visible} | {
        chr(256 + n): byte for n, byte in enumerate(hidden)
    }
    words = json.loads(tokenizer.read_bytes())["model"]["vocab"]
    with (folder / "o200k_base.tiktoken").open("wb") as file:
        for word, id_ in sorted(words.items(), key=lambda item: item[1]):
            if id_ < 199998:
                file.write(
                    base64.b64encode(bytes(bytes_of[letter] for letter in word)) + b" %d\n" % id_
                )


if __name__ == "__main__":
    main()
