"""Where models come from: hub, URL, wheel, directory."""
