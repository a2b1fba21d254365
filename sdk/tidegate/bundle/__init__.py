"""One model release: manifest, archive, digests and golden fixtures."""
