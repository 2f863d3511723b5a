"""I2VGen-XL in pure PyTorch: the video UNet of both stages, diffusion, samplers and the cascade."""
