"""What people start that is no step of a line: one image or many, a check, a benchmark, a summary."""
