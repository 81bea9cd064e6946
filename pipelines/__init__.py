"""Kubeflow pipelines over the components, and the commands that compile and run them."""
