"""Puts CRLs where caches fetch them."""
