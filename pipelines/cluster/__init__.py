"""The Ray cluster of a job: one that is there, or one of its own on this machine.

connection.py joins or starts it for the length of a job; local.py runs a head of its own for the
demo and its pages; access.py says who may speak to it.
"""
