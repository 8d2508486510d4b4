"""Files of the data folders to a checked Fleet, every mistake with its place."""
