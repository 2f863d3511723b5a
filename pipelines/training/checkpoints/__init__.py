"""A training's state on disk: whole or not there, named by hashes."""
