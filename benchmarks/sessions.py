"""Open the sessions that a benchmark compares: one place, so that ours and a peer's run under the
same options.
"""

from pathlib import Path

import onnxruntime


def open_session(
    model: Path | bytes, threads: int, library: Path | None = None, activations: str = "exact"
) -> onnxruntime.InferenceSession:
    """Return a CPU session of `model` on `threads` threads; with `library`, its kernels run with
    these activations.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A pool that spins after its run would take the processor from the one measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if library is not None:
        options.add_session_config_entry("gptoss.activations", activations)
        options.register_custom_ops_library(str(library))
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
