"""Test files made to try the recorder with; not of CPython."""
