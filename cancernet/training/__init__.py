"""Where data, model and evaluation meet: the Lightning task, its callbacks and its command line."""
