"""Answers OCSP over HTTP from the cache. Holds no key and no database."""
