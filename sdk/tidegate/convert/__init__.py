"""From trained models to a bundle: read signatures, assemble, verify."""
