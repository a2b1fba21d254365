"""Latency, throughput, memory and CPU time, measured on the target."""
