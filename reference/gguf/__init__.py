"""gpt-oss in GGUF files, in the terms of Hugging Face's layout."""
