"""Certificate Transparency: precertificates, logs, SCTs."""
