"""Latents -> batches: which clips make up a step, and reading them."""
