"""The generated world: moving-shape scenes with known captions, and films cut from them."""
