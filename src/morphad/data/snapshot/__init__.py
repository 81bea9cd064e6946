"""The copy of a line's images that a run works on, each described in the manifest."""
