//! GORT_SCHEDTRACE: a line about the scheduler every so many milliseconds, as Go's GODEBUG=schedtrace prints it
//! (runtime/proc.go, schedtrace). By sysmon, on stderr.

use super::runtime::Runtime;
use crate::primitive::atomic::Ordering;
use crate::sys::{clock, signal};
use std::fmt::{self, Write};

/// A longer line is printed in parts.
const LINE_BYTES: usize = 4096;

/// Text for stderr, without memory of its own: there may be none.
struct Line {
    text: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn print(&mut self) {
        signal::write_stderr(&[&self.text[..self.len]]);
        self.len = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for byte in part.bytes() {
            if self.len == LINE_BYTES {
                self.print();
            }
            self.text[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// When the next line is due.
pub(super) struct SchedTrace {
    begun_ns: u64,
    next_ns: u64,
}

impl SchedTrace {
    /// The first line is due at once.
    pub(super) fn new() -> Self {
        let now = clock::now_ns();
        Self { begun_ns: now, next_ns: now }
    }

    /// Prints the line if it is due; returns how long sysmon may sleep for the next, at most `pause_ns`.
    pub(super) fn print_if_due(&mut self, rt: &Runtime, now_ns: u64, pause_ns: u64) -> u64 {
        let period_ns = rt.config.schedtrace_ns;
        if period_ns == 0 {
            return pause_ns;
        }
        if now_ns >= self.next_ns {
            let mut line = Line { text: [0; LINE_BYTES], len: 0 };
            let _ = rt.schedtrace(&mut line, (now_ns - self.begun_ns) / 1_000_000); // a line takes all it is given
            line.print();
            self.next_ns = now_ns + period_ns;
        }
        pause_ns.min(self.next_ns.saturating_sub(now_ns)).max(1)
    }
}

impl Runtime {
    /// How many Ps are idle, Ms look for work, and goroutines are in the global queue: a moment's view of each. Any thread.
    pub fn unused(&self) -> [u64; 3] {
        [
            self.idle_processors.load(Ordering::Relaxed) as u64,
            self.spinning.load(Ordering::Relaxed) as u64,
            self.inject.len() as u64,
        ]
    }

    /// Writes Go's line, `at_ms` after the start. Any thread; each number is a moment's view.
    fn schedtrace(&self, line: &mut impl Write, at_ms: u64) -> fmt::Result {
        let all = &self.processors[..self.processors.in_use()];
        let spinning = self.spinning.load(Ordering::Relaxed);
        write!(
            line,
            "SCHED {at_ms}ms: gomaxprocs={} idleprocs={} threads={} spinningthreads={spinning} needspinning=0 \
             idlethreads={} runqueue={} [",
            all.len(),
            self.idle_processors.load(Ordering::Relaxed),
            self.machine_count.load(Ordering::Relaxed) + 1, // sysmon
            self.idle_machine_count(),
            self.inject.len(),
        )?;
        for p in all {
            write!(line, " {}", p.queue.len())?;
        }
        line.write_str(" ] schedticks=[")?;
        for p in all {
            write!(line, " {}", p.ticks.load(Ordering::Relaxed))?;
        }
        line.write_str(" ]\n")
    }
}
