"""How models get onto machines: fetched once, checked, copied between machines."""
