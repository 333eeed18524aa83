"""Where a package departs from the reference: the errors of its layers, and the first op at fault.

The failing case's own calls are run again on a copy of the graph that has more outputs, and the
reference runs them with the package's values in the place of its own. So each op is judged by the
inputs that it had, and one that passes an error on is told from the one that made it.
"""

from gptoss_onnx.validation.divergence.find import first_divergence
from gptoss_onnx.validation.divergence.layers import layer_errors
from gptoss_onnx.validation.divergence.recording import RecordedSession, Recording

__all__ = ["RecordedSession", "Recording", "first_divergence", "layer_errors"]
