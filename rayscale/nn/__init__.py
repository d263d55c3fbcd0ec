"""The model floor: torch and transformers, no Ray. Models, batches, rates, the training loop, metrics, saving."""
