//! CPU time of an M's goroutines. The thread's clock is a system call of half a microsecond and more; a switch takes a fifth
//! of that. Who ran for a moment only is charged with the time that passed, and the thread's clock is read when somebody
//! ran for longer, and for the sake of those once in a while at the beginning.

use crate::sys::clock;

/// Up to here the time that passed is taken for CPU time, ns.
const MOMENT_NS: u64 = 100_000;
/// How old a reading of the thread's clock may be when somebody goes on, ns: what the M does on its own account since then
/// is charged to the next who runs for longer than a moment.
const AGE_NS: u64 = 1_000_000;

/// A thread's reading of its own clock.
#[derive(Default)]
pub(in crate::sched) struct Meter {
    cpu_ns: u64,
    read_at_ns: u64,
    /// Charged since then without a look at it.
    guessed_ns: u64,
    /// When the goroutine that runs went on; 0: none is charged.
    begun_ns: u64,
    /// Which time the policies were in use then (`Policies::era`): a reading is of no use in another.
    era: u32,
}

impl Meter {
    fn read(&mut self, cpu_ns: u64, now_ns: u64) {
        (self.cpu_ns, self.read_at_ns, self.guessed_ns) = (cpu_ns, now_ns, 0);
    }

    /// Somebody goes on. On the thread whose meter this is, as `end`.
    pub(super) fn begin(&mut self, now_ns: u64, era: u32) {
        if !self.is_of(era) {
            *self = Self { era, ..Self::default() };
        }
        self.begin_by(now_ns, clock::thread_cpu_ns);
    }

    fn begin_by(&mut self, now_ns: u64, cpu_clock: impl FnOnce() -> u64) {
        self.begun_ns = now_ns;
        if self.read_at_ns == 0 || now_ns.saturating_sub(self.read_at_ns) >= AGE_NS {
            self.read(cpu_clock(), now_ns);
        }
    }

    /// That one is back: what it has computed, ns.
    pub(super) fn end(&mut self, now_ns: u64) -> u64 {
        self.end_by(now_ns, clock::thread_cpu_ns)
    }

    fn end_by(&mut self, now_ns: u64, cpu_clock: impl FnOnce() -> u64) -> u64 {
        let passed_ns = self.ran_ns(now_ns);
        self.begun_ns = 0;
        if passed_ns < MOMENT_NS {
            self.guessed_ns += passed_ns;
            return passed_ns;
        }
        let cpu_ns = cpu_clock();
        let used_ns = cpu_ns.saturating_sub(self.cpu_ns + self.guessed_ns).min(passed_ns);
        self.read(cpu_ns, now_ns);
        used_ns
    }

    /// Whether the last one went on in that era.
    pub(super) fn is_of(&self, era: u32) -> bool {
        self.era == era
    }

    /// Nobody is charged with what runs now.
    pub(in crate::sched) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether somebody is to be charged.
    #[inline]
    pub(in crate::sched) fn is_running(&self) -> bool {
        self.begun_ns != 0
    }

    /// Since when it runs, waits included, ns.
    pub(super) fn ran_ns(&self, now_ns: u64) -> u64 {
        if self.begun_ns == 0 { 0 } else { now_ns.saturating_sub(self.begun_ns) }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn short_runs_are_charged_with_what_passed_and_long_ones_with_cpu_time() {
        let mut meter = Meter::default();
        let never = || unreachable!("the thread's clock is not read for moments");
        meter.begin_by(1_000_000, || 500);
        assert_eq!(meter.end_by(1_000_900, never), 900);
        meter.begin_by(1_010_000, never);
        assert!(meter.is_running());
        // A second in a call, of which 2 ms were CPU time.
        assert_eq!(meter.end_by(1_001_010_000, || 500 + 900 + 2_000_000), 2_000_000);
        assert!(!meter.is_running());
    }

    #[test]
    fn what_the_thread_does_for_nobody_is_charged_to_nobody_for_long() {
        let mut meter = Meter::default();
        meter.begin_by(1_000_000, || 0);
        meter.end_by(1_000_010, || unreachable!());
        // The M looked for work for three seconds.
        meter.begin_by(3_001_000_000, || 3_000_000_000);
        assert_eq!(meter.end_by(3_002_000_000, || 3_001_000_000), 1_000_000);
        // Never more than what passed.
        meter.begin_by(3_002_500_000, || unreachable!("half a millisecond old"));
        assert_eq!(meter.end_by(3_002_700_000, || 3_001_700_000), 200_000);
    }
}
