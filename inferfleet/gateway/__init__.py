"""The gateway: where services are, what its data file says, what cannot be."""
