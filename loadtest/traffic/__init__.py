"""Locust users of a running deployment, who verify what they are told. `make load` starts one for them."""
