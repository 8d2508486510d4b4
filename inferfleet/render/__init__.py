"""A Fleet and the name of a machine to its Release; pure."""
