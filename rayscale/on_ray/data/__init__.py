"""Preparation and streaming of text as Ray Data plans."""
