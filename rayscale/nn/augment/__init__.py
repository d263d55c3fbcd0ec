"""Copies of text that a model makes: masked words filled in, translations there and back."""
