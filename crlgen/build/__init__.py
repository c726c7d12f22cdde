"""Assembles CRLs, has them signed, and reads them back as a stranger before they go out."""
