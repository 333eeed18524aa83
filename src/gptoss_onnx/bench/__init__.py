"""What a machine can do, and what running a package takes of it: the rooms behind `gptoss-onnx bench`."""
