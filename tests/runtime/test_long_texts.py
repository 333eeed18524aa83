"""Texts of megabytes, which a server gets from strangers."""

import threading

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Tokenizer


def test_others_run_while_a_long_text_is_encoded(demo_package: Package) -> None:
    """A server's other answers do not wait for who sends one."""
    tokenizer = Tokenizer.open(demo_package.folder)
    over, ticks = threading.Event(), [0]

    def tick() -> None:
        while not over.wait(0.0005):
            ticks[0] += 1

    for encode in (tokenizer.encode, tokenizer.encode_plain):
        ticks[0] = 0
        over.clear()
        beside = threading.Thread(target=tick)
        beside.start()
        tokens = encode("hello world " * 60_000)
        over.set()
        beside.join()
        assert tokens[:6] == encode("hello world " * 10)[:6]
        assert ticks[0] > 10  # hardly any where Python's lock is held all the time
