"""Attention without padding, in groups, and dropout by row."""
