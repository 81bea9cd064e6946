"""How a detector comes to be: the self-supervised training, in one process or several."""
