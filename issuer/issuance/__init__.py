"""Orders in, certificates out: flow 1."""
