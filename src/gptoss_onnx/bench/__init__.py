"""What a machine can do, and what a package takes of it: the room behind `gptoss-onnx bench`."""
