"""The server side: one core under thin servicers."""
