"""GGUF files, the container of llama.cpp and ollama: what is in them, and how it is decoded."""
