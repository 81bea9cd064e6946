"""Kubeflow components, one file each: thin faces of `morphad.steps`, run in the project's image."""
