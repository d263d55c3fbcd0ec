"""Models: built, cut, measured, with their objectives and adapters."""
