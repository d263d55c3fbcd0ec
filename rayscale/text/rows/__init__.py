"""Rows made clean: normalised, split, without duplicates, near-duplicates and leaks."""
