"""The issuing back-end."""
