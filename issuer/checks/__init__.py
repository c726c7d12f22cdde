"""What a request must pass before a serial is reserved for it."""
