"""Records on their way to a tracking server: on disk until they are there, in order, once."""
