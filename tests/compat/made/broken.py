"""A file that cannot be imported."""

raise ImportError("made to break")
