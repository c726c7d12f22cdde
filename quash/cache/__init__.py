"""A node's LMDB file of pre-signed answers: its byte layout, writer, reader, fsck."""
