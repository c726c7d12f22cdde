"""Signs every answer ahead of time and appends it to the feed. Holds the OCSP signing keys."""
