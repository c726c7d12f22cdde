"""Private keys behind a handle: encrypted PEM files and PKCS#11 tokens."""
