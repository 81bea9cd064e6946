"""`morphad pipeline` and `morphad schedule`: Kubeflow's client, runners on this machine, reconciled schedules."""
