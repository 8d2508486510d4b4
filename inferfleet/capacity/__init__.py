"""What a service needs of a machine's memory, and what it yields; arithmetic only."""
