"""Small models that work offline, and the scripts that trained them on the generated world."""
