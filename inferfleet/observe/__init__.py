"""What was found on a machine, and how it is read."""
