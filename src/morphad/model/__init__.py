"""What is learned: morphology, margins, networks, scores and the detector."""
