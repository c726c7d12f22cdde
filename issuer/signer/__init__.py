"""The only place with CA keys: typed requests in, checked against what the database has reserved."""
