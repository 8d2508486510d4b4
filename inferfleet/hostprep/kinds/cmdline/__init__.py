"""The kernel command line, the boot loaders that keep it, and the check of the next start."""
