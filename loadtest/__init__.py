"""Measures a whole deployment from outside: by its commands, its APIs and its public answers."""
