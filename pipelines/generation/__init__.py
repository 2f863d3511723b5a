"""An image and a prompt -> a video, with a trained cascade."""
