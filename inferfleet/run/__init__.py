"""One invocation: the machines chosen, what is known of each, and a session for each."""
