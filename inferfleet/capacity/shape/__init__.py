"""Files of a model to its Shape: weights in bytes, and what its layers keep per token."""
