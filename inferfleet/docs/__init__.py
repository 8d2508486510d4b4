"""The reference pages, made from the tasks and the models: `python -m inferfleet.docs`."""
