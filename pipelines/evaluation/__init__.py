"""What a trained cascade can do, as numbers: content kept, motion obeyed, detail added."""
