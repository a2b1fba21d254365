"""Call a Tidegate server, or any server of the Open Inference Protocol."""
