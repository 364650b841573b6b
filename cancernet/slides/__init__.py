"""A trained model on new tissue: patches, regions and whole slides in; probabilities, maps and pages out."""
