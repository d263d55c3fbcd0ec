"""The model's side of each task, a module of its name with an `OBJECTIVE`: the head, the loss, the metrics."""
