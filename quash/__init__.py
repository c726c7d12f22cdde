"""The foundation: what more than one service needs. It knows no service (its command line alone does)."""
