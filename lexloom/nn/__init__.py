"""Blocks that architectures are made of: attention, keyed dropout, transformer blocks."""
