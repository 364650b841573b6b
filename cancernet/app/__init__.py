"""A page in the browser to try a model on a patch, a region or a slide."""
