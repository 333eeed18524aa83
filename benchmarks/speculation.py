"""Time decoding with guessed tokens against plain decoding, on texts that are given.

    gptoss-onnx make-checkpoint 20b build/whole/checkpoint-4 --layers 4
    gptoss-onnx export build/whole/checkpoint-4 --output build/speculation/package \
        --dense checkpoint --kv-dtype bfloat16
    python benchmarks/speculation.py build/speculation/package --texts edit prose new

Random weights say nothing sensible, so what is said is laid down: after each call the logit of the
text's next token is made the largest. All else is real: the calls of the model with their experts,
the guesses, which are looked up in what stands before, the comparison, the rewinding, and the
choice of how many to guess. So the times are those of a model that says exactly this text.

- `edit`: a file of source code is the prompt, and the answer is that file with one name changed.
- `prose`: the beginning of a document is the prompt, and the answer is how it really goes on. What
  repeats are figures of speech, as in any text.
- `new`: random tokens, of which nothing repeats.

With `--draft PACKAGE` that model guesses; its text is the same one but for a share of the tokens,
`--wrong`, which it gets wrong.

Texts are encoded with the demo's tokenizer of 2,048 tokens, whose ids are spread over the
vocabulary. Rounds alternate plain and guessing; a ratio compares what ran in one round, and the
figure is the median over rounds.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import ratio
from scripted_session import scripted

from gptoss_onnx.processor import cpu_name
from gptoss_onnx.runtime import Generation, Sampling, Session, Tokenizer

ROOT = Path(__file__).parents[1]
SPREAD = 7919  # a prime, so that ids stay apart in any vocabulary that it does not divide
GREEDY = Sampling(stop_tokens=())
PROMPT = 700  # tokens at most


def main() -> None:
    """Time each text and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--wrong", type=float, default=0.2)
    parser.add_argument("--texts", nargs="+", choices=list(TEXTS), default=list(TEXTS))
    parser.add_argument("--speculate", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200, help="new ones of each text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--activations", default="exact")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    how: dict[str, Any] = {"threads": arguments.threads, "activations": arguments.activations}
    found = []
    with Session.open(arguments.package, **how) as session:
        draft = None if arguments.draft is None else Session.open(arguments.draft, **how)
        for name in arguments.texts:
            prompt, answer = TEXTS[name](session.vocab, arguments.tokens)
            found.append({"text": name, **timed(session, draft, prompt, answer, arguments)})
            print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        head = {"cpu": cpu_name(), **{key: str(value) for key, value in vars(arguments).items()}}
        arguments.json.write_text(json.dumps(head | {"texts": found}, indent=2) + "\n")


def timed(
    session: Session,
    draft: Session | None,
    prompt: list[int],
    answer: list[int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Return the medians of one text's rounds."""
    text = np.array(prompt + answer)
    model = scripted(session, text)
    wrong = np.random.default_rng(0).random(text.size) < arguments.wrong
    other = None if draft is None else scripted(draft, np.where(wrong, text ^ 1, text))
    rates: dict[int, list[float]] = {0: [], arguments.speculate: []}
    seconds: list[float] = []
    for _ in range(arguments.rounds):
        for speculate, kept in rates.items():
            generation = model.generate(
                prompt,
                GREEDY,
                max_new_tokens=len(answer),
                speculate=speculate,
                draft=other if speculate else None,
            )
            if list(generation) != answer:
                raise SystemExit("found another text than the one laid down")
            kept.append((len(answer) - 1) / generation.decode_seconds)
            if speculate == 0:
                seconds.append(generation.decode_seconds)
    plain, guessing = rates.values()
    return {
        "prompt_tokens": len(prompt),
        "new_tokens": len(answer),
        "plain_tokens_per_second": round(statistics.median(plain), 2),
        "guessing_tokens_per_second": round(statistics.median(guessing), 2),
        "ratio": round(ratio(guessing, plain), 3),
        **speculated(generation),
    }


def speculated(generation: Generation[int]) -> dict[str, int]:
    """Return what came of the guesses."""
    return {} if generation.speculated is None else generation.speculated._asdict()


def edit(vocab: int, count: int) -> tuple[list[int], list[int]]:
    """Return a file of code and the same with another name in it."""
    code = (ROOT / "runtime" / "candidates.py").read_text()
    return encode(code, vocab)[:PROMPT], encode(code.replace("scores", "points"), vocab)[:count]


def prose(vocab: int, count: int) -> tuple[list[int], list[int]]:
    """Return the beginning of a document, and how it goes on."""
    document = ROOT / "docs" / "adr" / "0017-one-engine-behind-every-server.md"
    tokens = encode(document.read_text(), vocab)
    return tokens[:PROMPT], tokens[PROMPT : PROMPT + count]


def new(vocab: int, count: int) -> tuple[list[int], list[int]]:
    """Return random tokens, each of which comes once."""
    tokens = np.random.default_rng(1).permutation(vocab)[: PROMPT + count].tolist()
    return tokens[:PROMPT], tokens[PROMPT:]


def encode(text: str, vocab: int) -> list[int]:
    """Return a text's tokens, spread over the vocabulary."""
    tokens: NDArray[np.int64] = np.array(TOKENIZER.encode(text), np.int64)
    spread: list[int] = (tokens * SPREAD % vocab).tolist()
    return spread


TOKENIZER = Tokenizer.open(ROOT / "demo" / "checkpoint")
TEXTS = {"edit": edit, "prose": prose, "new": new}

if __name__ == "__main__":
    main()
