"""A batch of onnxruntime-genai whose rows differ in length: padded on the right, as its tokenizer
pads, every row says what it says alone.
"""

import json

from gptoss_onnx.exporter import Package
from support.genai_client import ask, marks, run

pytestmark = marks

COUNT = 64


def test_rows_of_different_lengths(ort_package: Package) -> None:
    document = json.loads((ort_package.folder / "golden" / "golden.json").read_text())
    settings = json.loads((ort_package.folder / "genai_config.json").read_text())
    prompts = [case["token_ids"] for case in document["cases"]]
    assert len({len(ids) for ids in prompts}) == len(prompts)
    longest = max(map(len, prompts))
    pad = settings["model"]["pad_token_id"]
    rows = [ids + [pad] * (longest - len(ids)) for ids in prompts]
    steps = [("append", rows), ("generate", COUNT)]
    runs = [run(longest + COUNT, *steps, batch_size=len(rows))]
    (answer,) = ask("generate", ort_package.folder, runs=runs)
    assert answer["error"] is None
    assert answer["tokens"] == [case["greedy"] for case in document["cases"]]
