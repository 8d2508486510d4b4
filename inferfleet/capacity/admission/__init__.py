"""Whether what a plan starts fits beside what runs, and who stands in the way."""
