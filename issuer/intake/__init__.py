"""The public report endpoint: takes problem reports and proofs of compromise, and holds nothing worth taking."""
