"""From a folder of raw video to a trained two-stage image-to-video model."""
