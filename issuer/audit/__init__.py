"""The ledger: chains acts and signatures by hash, signs checkpoints, verifies and exports (F1-F7, G24)."""
