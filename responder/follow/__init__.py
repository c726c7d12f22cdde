"""Applies the feed to this node's cache."""
