"""What goes into MLflow and comes out of it, without its types; ../tracking.py imports it."""
