"""no_collection: make very many objects that live, without looking for garbage among them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector, which otherwise looks through all of them again and
    again: a tenth of the time of an import of PyTorch or of a trace, a third of that of a header
    with 250,000 tensors.

    Afterwards they count as old, so that the next collection does not look through them either.
    One of all objects still finds what is garbage among them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what somebody froze stays frozen
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
