"""Tokenizers, trained or loaded, and the files of token ids that training reads."""
