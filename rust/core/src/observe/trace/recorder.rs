//! The flight recorder: the last generations of a trace, as many as are wanted.

use super::encoder::End;
use super::wire::HEADER;
use std::collections::VecDeque;

/// What a flight recorder keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At least so much of the past, ns, if it is not too large.
    pub age_ns: u64,
    /// At most so many bytes, but for one generation.
    pub bytes: usize,
}

struct Kept {
    bytes: Vec<u8>,
    ended_ns: u64,
}

/// Whole generations, and the one in the making.
pub(super) struct Recorder {
    limits: Limits,
    kept: VecDeque<Kept>,
    open: Vec<u8>,
}

impl Recorder {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, kept: VecDeque::new(), open: Vec::new() }
    }

    /// Takes what was written, in which these generations end. `None`: memory is refused.
    pub(super) fn take(&mut self, out: &[u8], ends: &[End]) -> Option<()> {
        let mut from = 0;
        for end in ends {
            self.add(&out[from..end.at])?;
            from = end.at;
            self.kept.try_reserve(1).ok()?;
            self.kept.push_back(Kept { bytes: std::mem::take(&mut self.open), ended_ns: end.ended_ns });
            self.prune(end.ended_ns);
        }
        self.add(&out[from..])
    }

    fn add(&mut self, bytes: &[u8]) -> Option<()> {
        self.open.try_reserve(bytes.len()).ok()?;
        self.open.extend_from_slice(bytes);
        Some(())
    }

    fn prune(&mut self, now_ns: u64) {
        let mut bytes: usize = self.kept.iter().map(|kept| kept.bytes.len()).sum();
        // The first is not needed when those after it go back far enough, to its end.
        while self.kept.len() > 1
            && (bytes > self.limits.bytes || now_ns.saturating_sub(self.kept[0].ended_ns) >= self.limits.age_ns)
        {
            bytes -= self.kept.pop_front().map_or(0, |kept| kept.bytes.len());
        }
    }

    /// A trace of whole generations; `None`: memory is refused.
    pub(super) fn snapshot(&self) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let bytes: usize = self.kept.iter().map(|kept| kept.bytes.len()).sum();
        all.try_reserve_exact(bytes + HEADER.len()).ok()?;
        all.extend_from_slice(HEADER);
        self.kept.iter().for_each(|kept| all.extend_from_slice(&kept.bytes));
        Some(all)
    }
}
