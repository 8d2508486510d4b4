"""AI models: where they come from, where they lie on a machine, how they get there."""
