"""What came from the camera: decoding, sources, manifests, splits and their contract."""
