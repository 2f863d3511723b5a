"""Curation: WATCH, JUDGE, KEEP; a file a stage, named by what it decides."""
