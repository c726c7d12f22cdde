"""Everything OCSP."""
