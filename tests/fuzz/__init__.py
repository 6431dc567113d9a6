"""Random programs against the rules of Go: programs, how they run, what is checked."""
