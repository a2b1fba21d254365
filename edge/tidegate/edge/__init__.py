"""The device side: sources, prefilter, endpointer, pipeline."""
