"""How results are judged: metrics, limits, and where a router is undecided."""
