"""What a package cannot do, by what it is exported for: the words of `Manifest.unsupported`, which
sessions refuse and `validate` reports.
"""

from gptoss_onnx.choices import ExpertForm, OnnxRuntime, Provider, Target

RAGGED = "ragged batches"
# Every package of ours takes batches; the exports of others may be of one row alone.
BATCHES = "several rows"
SEVERAL = "several tokens a row after the first call of a batch"
REWINDING = "rewinding"
# All three need attention that is told how many tokens each row has: an input of
# GroupQueryAttention since ONNX Runtime 1.32.
BY_ROW = (RAGGED, SEVERAL, REWINDING)


def not_offered(
    target: Target, provider: Provider, onnxruntime: OnnxRuntime, experts: ExpertForm
) -> tuple[str, ...]:
    """Return what a package exported with these options cannot do.

    Args:
        target: `portable`, which can do everything, or `ort`.
        provider: what the graph is made for.
        onnxruntime: the least version that it runs on.
        experts: their form. Only integers may be multiplied by integer activations.
    """
    if target == "portable":
        return ()
    by_row = BY_ROW if onnxruntime == "1.28" else ()
    if provider == "cuda":  # its ops have no kernels of their types on the CPU
        narrow = ("kv cache in float32", "kv cache in float16", "activations bf16")
        return (*by_row, *narrow, "activations int8", "provider cpu")
    integers = () if experts in ("int8", "int4") else ("activations int8",)
    return (*by_row, "kv cache in bfloat16", "activations bf16", "provider cuda", *integers)
