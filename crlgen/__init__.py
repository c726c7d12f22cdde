"""Everything CRL."""
