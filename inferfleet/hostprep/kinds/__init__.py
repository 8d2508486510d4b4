"""Kinds of settings, a folder each topic; inferfleet.hostprep.registry names them all."""
