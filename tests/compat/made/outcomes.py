"""A test for every way a test can end, for the test of the recorder; unittest only."""

import os
import signal
import threading
import unittest


class Outcomes(unittest.TestCase):
    def test_passes(self):
        self.assertEqual(1 + 1, 2)

    def test_fails(self):
        self.assertEqual(1 + 1, 3)

    def test_errs(self):
        raise LookupError("made to err")

    def test_skips(self):
        self.skipTest("made to skip")

    @unittest.skip("whole test skipped")
    def test_is_skipped(self):
        pass

    @unittest.expectedFailure
    def test_fails_as_expected(self):
        self.fail("as expected")

    @unittest.expectedFailure
    def test_passes_unexpectedly(self):
        pass

    def test_subtests(self):
        for n in range(3):
            with self.subTest(n=n):
                self.assertNotEqual(n, 1)

    def test_exits(self):
        raise SystemExit(3)


class Deadly(unittest.TestCase):
    def test_a_hangs(self):
        threading.Event().wait()

    def test_b_aborts(self):
        os.abort()

    def test_c_leaves(self):
        os._exit(0)

    def test_d_interrupts(self):
        raise KeyboardInterrupt

    def test_e_blocks_signals_and_hangs(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        threading.Event().wait()

    def test_f_after_all_that(self):
        pass


class BadFixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("made to err in setUpClass")

    def test_never_runs(self):
        pass


class HangingFixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        threading.Event().wait()

    def test_never_runs(self):
        pass

    def test_never_runs_either(self):
        pass


class Last(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        threading.Event().wait()

    def test_before_a_hanging_end(self):
        pass


def load_tests(loader, tests, pattern):
    """In this order, and one test twice."""
    suite = unittest.TestSuite()
    for case in (Outcomes, Deadly, BadFixture, HangingFixture):
        suite.addTest(loader.loadTestsFromTestCase(case))
    suite.addTest(Outcomes("test_passes"))
    suite.addTest(loader.loadTestsFromTestCase(Last))
    return suite
