"""Packages that are wrong in one way each, and must not pass `gptoss-onnx validate`.

A mutant is a whole package that opens and runs: its manifest describes its files, as if a careful
program had written it, and what it computes is not what the checkpoint says. `prove` shows that by
its outputs; `run` asks `validate` at its defaults, and counts which mutants it finds and whether it
names the right place.

Not to be confused with `mutations`, which spoils files at random, as a disk or a stranger may, and
looks for crashes, hangs and long messages: what it makes should not open, and nobody asks what it
computes.
"""
