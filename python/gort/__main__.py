"""`python -m gort`: the command line."""

from gort.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
