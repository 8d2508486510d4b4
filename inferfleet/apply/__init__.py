"""A Plan to done or rolled back, and the generations that stay on the machine."""
