"""Files of every kind to rows: where they are, how they are opened, and in which encoding."""
