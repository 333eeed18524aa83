"""PEFT adapters (LoRA): which parameters of a checkpoint an adapter changes, and how."""
