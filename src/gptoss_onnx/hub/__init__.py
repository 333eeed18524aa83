"""A package for the Hugging Face hub: its model card, and the upload of both.

`card` writes the card from what is known: `origin` knows the checkpoint and its licence, `measured`
what `validate` has found. `layout` says which files go where in a repository, `push` uploads them.
The extra `hub` brings huggingface_hub and PyYAML.
"""
