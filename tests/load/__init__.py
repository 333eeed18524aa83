"""Many clients at once, of all manners, against a server in a process of its own."""
