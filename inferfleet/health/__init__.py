"""Services after they were ready: do they still generate, and what to do when they do not."""
