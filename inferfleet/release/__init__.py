"""What one machine should have: its files, links, units and models, and the forms it takes."""
