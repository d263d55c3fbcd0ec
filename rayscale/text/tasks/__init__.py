"""The text side of each task, a module of its name with a `FORM`: how rows are read, what they become as tokens."""
