"""Benchmarks: jobrunner against the bare primitive, whole processes side by side. Run with `python -m benchmarks`."""
