"""What tasks do beyond the pipeline: status, logs, endpoints, tunnels, pages, updates."""
