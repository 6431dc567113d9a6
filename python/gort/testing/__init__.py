"""For tests of code that uses goroutines: fake time, waiting for states, leaks, order.

- `synctest`: run a test in a bubble with a clock of its own (Go's testing/synctest).
- `wait_all_parked`: wait until every other goroutine is parked.
- `no_leaks`: fail when a block leaves goroutines behind.
- `Sequencer`: let blocks of several goroutines run in a given order.

pytest finds the plugin by itself: `@pytest.mark.synctest`, `@pytest.mark.no_leaks`, the fixture
`no_leaks`, and `gort_no_leaks = true` in its configuration for all tests.
"""

from gort.testing import synctest
from gort.testing._leaks import LeakError, no_leaks
from gort.testing._parked import wait_all_parked
from gort.testing._sequencer import Sequencer

__all__ = ["LeakError", "Sequencer", "no_leaks", "synctest", "wait_all_parked"]
