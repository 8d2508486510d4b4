"""One service of one machine with every default applied; pure."""
