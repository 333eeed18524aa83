"""Score packages with EleutherAI's lm-evaluation-harness.

`python -m gptoss_onnx.lm_eval` is its command `lm_eval` with one more model, `gptoss-onnx`.
`model` defines that model, and is the only module that imports the harness; `scoring` does the
work, without it. It is an extra: `pip install "gptoss-onnx[cpu,lm-eval]"`.
"""
