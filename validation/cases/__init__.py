"""The parity cases: what is run, and how a session is driven through it."""
