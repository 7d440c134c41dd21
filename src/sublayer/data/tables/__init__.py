"""Text as it was read, before it is encoded: one kind of row a file."""
