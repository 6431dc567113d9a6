//! What is only told when it is over, or was seen from elsewhere: waits for the host's lock, stacks that were shrunk, samples of the
//! CPU profile.
//!
//! Who waits for the host's lock cannot note that it does: nobody else writes to the list meanwhile. Go knows neither of the first
//! two: a wait is shown as a region of the goroutine, and a pass over stacks as what Go's collector does beside goroutines, a sweep,
//! the one event for that which names how much was given back.

use super::encoder::Encoder;
use super::wire::ev;
use crate::event::{Record, STEP_NS};

/// What the region of a wait for the host's lock is called.
pub(super) const WAIT: &str = "GIL wait";
/// Of a thread that was not looked at for long no more samples are told than that.
const MOST_SAMPLES: u32 = 1_000;
/// Each stack gives back a page, or more: that is not counted.
const LEAST: u64 = 4096;

impl Encoder {
    /// A goroutine has waited for the host's lock.
    pub(super) fn waited(&mut self, m: usize, p: Option<u32>, record: &Record) {
        let ended_ns = self.now_ns.saturating_sub(u64::from(record.stack) * STEP_NS);
        if record.g == 0 || ended_ns <= self.began_ns {
            return; // nobody's, or over before this generation
        }
        self.run(m, p, record.g);
        let name = self.string(WAIT);
        let began_ns = ended_ns.saturating_sub(u64::from(record.arg) * STEP_NS);
        self.emit_late(m, began_ns, ev::REGION_BEGIN, &[0, name, 0]);
        self.emit_late(m, ended_ns, ev::REGION_END, &[0, name, 0]);
    }

    /// Stacks were shrunk.
    pub(super) fn shrunk(&mut self, m: usize, p: Option<u32>, record: &Record) {
        let runs_nobody = self.ms[m].g == 0;
        if runs_nobody {
            self.hold(m, p);
        } else {
            self.run(m, p, self.ms[m].g);
        }
        let began_ns = self.now_ns.saturating_sub(u64::from(record.arg) * STEP_NS);
        self.emit_late(m, began_ns, ev::SWEEP_BEGIN, &[0]);
        self.emit(m, ev::SWEEP_END, &[record.g, u64::from(record.stack) * LEAST]);
        if runs_nobody {
            self.drop_lent(m);
        }
    }

    /// Samples of the CPU profile.
    pub(super) fn sampled(&mut self, p: Option<u32>, record: &Record) {
        let (stack, p) = (self.stack(record.stack), p.map_or(u64::MAX, u64::from));
        for _ in 0..record.arg.min(MOST_SAMPLES) {
            if self.wire.sample([self.now_ns, record.m.into(), p, record.g, stack]).is_none() {
                self.lost += 1;
            }
        }
    }
}
