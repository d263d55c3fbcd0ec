"""What a person should know of the text before training: counts, faults, a first look."""
