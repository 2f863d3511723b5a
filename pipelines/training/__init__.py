"""Dataset on disk -> latents -> base and refinement checkpoints -> generated video."""
