"""Sinks: each folds the event stream into one output. What a sink needs is in the events."""
