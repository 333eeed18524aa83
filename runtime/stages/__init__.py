"""Processes that each run some layers of a model, and what a staged session tells them."""
