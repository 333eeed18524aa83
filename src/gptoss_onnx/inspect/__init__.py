"""What a package holds, and whether its files are still those it was made with: the room behind
`gptoss-onnx inspect`.
"""
