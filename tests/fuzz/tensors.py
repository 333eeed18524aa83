"""Numbers of a case as torch tensors, and where float32 and float64 part."""

import numpy as np
import torch

from fuzz.case import BFLOAT16, Case, Tensor

OVERFLOWS = 1e37  # sums of this size may overflow in float32 on their way
UNDERFLOW = 1e-35  # and below this size lose bits as denormal numbers
# bfloat16 products take denormal factors as zero, and so the second of an activation's two terms
FLUSHED = 2.0**-117


def torch_of(array: np.ndarray, element: int) -> torch.Tensor:
    """Return an array as a torch tensor; bfloat16 comes as its bits."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.view(torch.bfloat16) if element == BFLOAT16 else tensor


def torch_inputs(case: Case) -> dict[str, torch.Tensor | None]:
    """Return all inputs, in order."""

    def of(tensor: Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else torch_of(tensor.array, tensor.type)

    return {name: of(tensor) for name, tensor in case.inputs.items()}


def torch_outputs(case: Case, arrays: list[np.ndarray]) -> list[torch.Tensor]:
    """Return all outputs, in order."""
    return [
        torch_of(array, element) for array, (element, _) in zip(arrays, case.outputs, strict=True)
    ]
