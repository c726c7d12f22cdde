"""The `quash` command, one module per group of verbs."""
