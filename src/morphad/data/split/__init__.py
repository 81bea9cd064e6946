"""Roles of the images: by session, without copies between them, with a frozen holdout."""
