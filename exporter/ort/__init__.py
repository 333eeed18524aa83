"""Target ort: the traced graph in ops that every build of ONNX Runtime has."""
