"""From audio to words and search results, shared by device and server."""
