"""Messages of the package tidegate.v1."""
