"""A test that passes and leaves a thread that never ends, so that the process does not."""

import threading
import unittest


class Leaves(unittest.TestCase):
    def test_passes(self):
        threading.Thread(target=threading.Event().wait).start()
