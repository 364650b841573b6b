"""List the patches of an archive: the Kaggle zip, its unpacked folder, or a CSV table."""
