"""Kinds of settings, a module each; inferfleet.hostprep.registry names them all."""
