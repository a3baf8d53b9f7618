"""Architectures: one network a file, with its config, heads and weight-name table."""
