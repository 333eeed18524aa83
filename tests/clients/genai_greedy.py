"""Continue the golden prompts of a package greedily with onnxruntime-genai; runs in that package's
own environment.

Usage: genai_greedy.py PACKAGE default|exact; prints one JSON object, tokens by case. `default` sets
    nothing. `exact` sets the session option under which QMoE multiplies float32 activations with
    8-bit experts too.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og

EXACT = {"model": {"decoder": {"session_options": {"session.disable_prepacking": "1"}}}}


def main(package: str, arithmetic: str) -> None:
    """Print the continuations."""
    config = og.Config(package)
    if arithmetic == "exact":
        config.overlay(json.dumps(EXACT))
    model = og.Model(config)
    golden = json.loads((Path(package) / "golden" / "golden.json").read_text())
    print(json.dumps({case["name"]: continuation(model, case) for case in golden["cases"]}))


def continuation(model: og.Model, case: dict) -> list[int]:
    """Return as many tokens as the golden continuation has; no stop token ends it."""
    length = len(case["token_ids"]) + len(case["greedy"])
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length, min_length=length)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([case["token_ids"]], np.int32))
    tokens = []
    while len(tokens) < len(case["greedy"]):
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


main(*sys.argv[1:])
