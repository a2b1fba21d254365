"""Load and run one variant of a bundle on whichever backend is installed."""
