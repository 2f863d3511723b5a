"""Which raw clip taught which checkpoint: manifests, tracing, takedown, experiment tracking."""
