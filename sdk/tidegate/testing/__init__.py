"""Contract suites and fakes for those who implement a Tidegate Protocol."""
