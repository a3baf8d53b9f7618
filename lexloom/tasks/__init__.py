"""Tasks: objectives that also answer and are scored; one a file."""
