"""A package's graph and weights against those that a fresh export of the checkpoint has.

Nothing is run: every node, attribute, constant and function body is compared, and every weight.
"""
