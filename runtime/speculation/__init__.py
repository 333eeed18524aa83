"""Speculation: guess the next tokens cheaply, and let one call of the model check all of them."""
