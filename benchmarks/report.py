"""Turn the benchmarks' JSON documents into the page and the plot of docs/benchmarks.

    build/peers/venv/bin/python benchmarks/report.py docs/benchmarks

Reads moe*.json, linear*.json, attention*.json, clients*.json, rows*.json, contexts*.json and
whole-*.json of that folder, as the benchmarks write them with --json. What one processor gave stays
beside what another gives (moe.json, moe-epyc.json): every title names the processor.
Needs matplotlib, which peers.sh installs.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from report_curves import contexts, together
from report_tables import PEER, optional, ratio, seconds, section, table

INTRODUCTION = """# Benchmarks

This page compares the kernels and sessions of gptoss-onnx with other programs, on the shapes of
gpt-oss-20b, random weights and random tokens. `benchmarks/report.py` writes it from the JSON files
beside it. The scripts in `benchmarks/` say how each figure is taken.

- In one run the *contenders* (the programs and settings that are compared) take turns. Ratios are
  medians of ratios within one round, so a noisy machine changes both sides alike.
- *× NAME* is the time of NAME divided by the row's: above 1, the row is faster. Only *× Python* is
  the inverse: below 1, the row is faster.
- *Prefill of 512* reads a prompt of 512 tokens. *Decode* computes one token after another, *at 8k*
  with 8192 tokens in the cache. *First token* includes reading weights that are only on disk.
- *Share of read* is the time of a plain read of the same bytes (several prefetched streams a
  thread) divided by the kernel's time. *Error* is the root mean square difference from our mode
  exact, relative to its output.
- *New MB* are bytes on disk that are not links to the checkpoint. *Anonymous MB* is the memory of
  the process outside mapped files.
- *Lowered to* names a CPU level below the processor's own, for our kernels only. Where a peak is
  *too high*, the loop that measured it was faulty ([ADR 23](../adr/0023-shares-of-a-true-peak.md)).

**Ours.** Experts are the MXFP4 bytes of the checkpoint; the whole model has a bfloat16 cache. *bf16
dense* multiplies by every weight as the checkpoint has it, *packed dense* by the same weights in 12
bits (`export --dense packed`). *int8 dense* is `export --dense int8`. A plain *exact*, *bf16* or
*int8* says how activations are rounded.

**llama.cpp** is the one inside llama-cpp-python 0.3.36, built for this processor but without AMX,
because its AMX product of Q8_0 weights crashes there (`benchmarks/peers.sh`). It runs with its
defaults: MXFP4 experts repacked (except *as stored*), Q8_0 (8 bits) elsewhere, a 16-bit cache. It
was not run at 8k with 24 layers, because it takes a quarter of an hour to fill that context.

**ONNX Runtime.** *stock ONNX Runtime 1.32 fp4* is `export --target ort`: ONNX Runtime's own ops
without our library, on the checkpoint's MXFP4 and float32 elsewhere, exact. *The same in
onnxruntime-genai* is that package in onnxruntime-genai 0.18, at its default settings. *Its own
int4* is what its model builder makes of the checkpoint (`-p int4 -e cpu`: experts and projections
rounded to 4 bits), without an accuracy level and with level 4. In runs of 1.31.1,
*onnxruntime-genai* is a package with experts in 8 bits and their default arithmetic. *qmoe* (QMoE),
*gemm* (Gemm) and *nbits* (MatMulNBits) are its ops. Under *Projections*, MatMulNBits of few tokens
read weights from the cache ([ADR 22](../adr/0022-int8-weights-times-integers.md)).

**Rows that decode together** are texts of one batch. *Experts* counts the different ones that they
choose in a layer. *Bound* is the best factor if each of these, and all else, is read only once.

**Long contexts.** Programs ran one after the other here. *Growth* is the time of a call with so
many tokens in the cache, divided by the same program's with the shortest context.
"""
STOCK = "stock ONNX Runtime 1.32 fp4"
# Key of the times, tokens of each, title.
CASES = (
    ("prefill", 512, "prefill of 512"),
    ("decode", 1, "decode"),
    ("decode_8k", 1, "decode at 8k"),
)
COLOURS = {PEER: "#9a9a9a", STOCK: "#c9a04a"}
OURS = "#2a6fb0"


def main() -> None:
    """Write README.md and decode.svg into the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    documents = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }
    sections = [INTRODUCTION]
    whole = {name: document for name, document in documents.items() if name.startswith("whole")}
    for document in whole.values():
        sections.append(whole_model(document))
    for name, write in (
        ("clients", clients),
        ("moe", experts),
        ("attention", attention),
        ("linear", linear),
        ("rows", together),
        ("contexts", contexts),
    ):
        sections += [write(found) for key, found in documents.items() if key.startswith(name)]
    if whole:
        plot(next(iter(whole.values())), folder / "decode.svg")
        sections.insert(1, "![Decode and prefill of the whole model](decode.svg)\n")
    (folder / "README.md").write_text("\n".join(sections), encoding="utf-8")


def whole_model(document: dict[str, Any]) -> str:
    """Return the section of one whole_model.py run."""
    times = document["times"]
    peers = [name for name in (PEER, STOCK) if name in times]
    cases = [case for case in CASES if all(entry[case[0]] for entry in times.values())]
    written = document.get("new_bytes")
    rows = []
    for name, entry in times.items():
        row = [name, seconds(entry["opened_in"], 1), seconds(entry["first_token"], 2)]
        if written:
            row.append(f"{written[name] / 1e6:,.0f}")
            row.append(f"{statistics.median(entry['anonymous_at_open']) / 1e6:,.0f}")
        row.append(f"{statistics.median(entry['anonymous']) / 1e6:,.0f}")
        for key, unit, _ in cases:
            row.append(f"{unit / statistics.median(entry[key]):.1f}")
            for peer in peers:
                row.append(ratio(times[peer][key], entry[key]) if peer != name else "")
        rows.append(row)
    layers = document["layers"]
    header = ["", "open s", "first token s"]
    header += ["new MB", "anonymous MB at open"] if written else []
    header.append("anonymous MB")
    for _, _, title in cases:
        header += [f"{title}, tokens/s", *(f"× {peer}" for peer in peers)]
    title = f"## Whole model, {layers} layers, {document['arrangement']}"
    return section(title, document, table(header, rows))


def clients(document: dict[str, Any]) -> str:
    """Return the section of clients.py."""
    titles = ("decode, ms a token", "prefill, ms a token", "open ms")
    header = ["client", *(text for title in titles for text in (title, "× Python"))]
    rows = [
        [
            result["client"],
            *(
                f"{result[f'{part}_{key}']:.2f}"
                for part in ("decode", "prefill", "load")
                for key in ("ms", "ratio")
            ),
        ]
        for result in document["results"]
    ]
    run = f"{document['layers']} layers, {document['activations']} activations"
    title = f"## Clients without Python, {run}"
    return section(title, document, table(header, rows))


def experts(document: dict[str, Any]) -> str:
    """Return the section of moe.py."""
    peers = list(document["results"][0]["speedup_over"])
    header = [
        "contender",
        "tokens",
        "ms a layer",
        "share of read",
        "error",
        *(f"× {peer}" for peer in peers),
    ]
    rows = [
        [
            result["contender"],
            str(result["tokens"]),
            f"{result['milliseconds']:.2f}",
            optional(result["share_of_read"], ".2f"),
            optional(result["error"], ".1e"),
            *(optional(result["speedup_over"].get(peer), ".2f") for peer in peers),
        ]
        for result in document["results"]
    ]
    return section("## Experts, one layer", document, table(header, rows))


def attention(document: dict[str, Any]) -> str:
    """Return the section of attention.py."""
    header = [
        "case",
        "cache and activations",
        "ms a layer",
        "× GroupQueryAttention",
        "cache GB/s",
        "GFLOP/s",
    ]
    rows = [
        [
            result["case"],
            result["variant"],
            f"{result['milliseconds']:.3f}",
            f"{result['speedup']:.2f}",
            f"{result['cache_gb_s']:.1f}",
            f"{result['gflops']:.0f}",
        ]
        for result in document["results"]
    ]
    return section("## Attention, one layer", document, table(header, rows))


def linear(document: dict[str, Any]) -> str:
    """Return the section of linear.py."""
    peers = list(document["results"][0]["speedup_over"])
    header = [
        "projection",
        "weights",
        "tokens",
        "activations",
        "ms",
        "share of",
        "",
        *(f"× {peer}" for peer in peers),
    ]
    rows = [
        [
            result["case"],
            result["weights"],
            str(result["tokens"]),
            result["activations"],
            f"{result['milliseconds']:.3f}",
            result["floor"],
            f"{result['share_of_floor']:.2f}",
            *(optional(result["speedup_over"].get(peer), ".2f") for peer in peers),
        ]
        for result in document["results"]
    ]
    return section("## Projections", document, table(header, rows))


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw tokens a second of the whole model, one panel a case."""
    times = document["times"]
    cases = [case for case in CASES if all(entry[case[0]] for entry in times.values())]
    figure, axes = plt.subplots(1, len(cases), figsize=(4 * len(cases), 3), sharey=True)
    for axis, (key, unit, title) in zip(axes, cases, strict=True):
        speeds = [unit / statistics.median(entry[key]) for entry in times.values()]
        bars = axis.barh(list(times), speeds, color=[COLOURS.get(name, OURS) for name in times])
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.set_title(f"{title}, tokens/s", fontsize=10)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "decode"  # the same figures give the same file
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
