"""Serves the publish folder over HTTP."""
