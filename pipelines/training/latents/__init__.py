"""Dataset -> latents: what is kept, how it lies on disk, what is taken over from before."""
