"""A file that cannot be had on this system."""

import unittest

raise unittest.SkipTest("made to be absent")
