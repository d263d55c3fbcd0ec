"""rayscale: what more data, a larger model or more GPUs would bring, measured."""
