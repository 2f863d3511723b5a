"""Whose footage it is and what it may be used for: read, brought together, held to the policy."""
