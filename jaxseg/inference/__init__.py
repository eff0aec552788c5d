"""A trained network and a case: probabilities, label maps, files, bundles."""
