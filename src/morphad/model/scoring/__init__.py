"""From a trained network to a score and a map for each image: by cases, or by densities of patch features."""
