"""What each engine makes of a model's shape: weights, KV cache, overhead; pure."""
