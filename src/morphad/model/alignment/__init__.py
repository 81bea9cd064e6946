"""The part is put in its place before anything else sees the picture: registration, and what is learned for it."""
