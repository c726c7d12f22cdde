"""Sites that show a valid, a revoked and an expired certificate of each root to whoever tests software (F13)."""
