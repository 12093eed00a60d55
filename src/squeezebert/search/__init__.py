"""From a latency budget to a network: search space, latency table, supernet, search."""
