"""What runs on a training worker, step by step."""
