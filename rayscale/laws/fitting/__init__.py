"""One fit of one law: starts, the robust loss, its minimum, intervals, and what it says of itself."""
