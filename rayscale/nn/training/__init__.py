"""One trial, from its settings to what it measured."""
