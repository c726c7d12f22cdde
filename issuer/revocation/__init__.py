"""The admin API, revocation with its siblings, and the jobs behind it: flow 2."""
