//! What programs say themselves: tasks, regions, messages and labels.

use super::encoder::Encoder;
use super::wire::{Mix, Wire, ev};
use crate::event::{Kind, Record, User};
use std::hash::Hasher;

impl Encoder {
    pub(super) fn user(&mut self, m: usize, p: Option<u32>, record: &Record, rest: &[Record]) {
        if record.g == 0 {
            return; // a plain thread's: there is no goroutine that it could be part of
        }
        self.run(m, p, record.g);
        let Some((user, first, second)) = User::unpack(rest) else { return };
        if !self.nests(record, user.task, first) {
            return;
        }
        let name = self.wire.string(first);
        let stack = self.stack(record.stack);
        match record.kind() {
            Kind::TaskBegin => self.emit(m, ev::TASK_BEGIN, &[user.task, user.parent, name, stack]),
            Kind::TaskEnd => self.emit(m, ev::TASK_END, &[user.task, stack]),
            Kind::RegionBegin => self.emit(m, ev::REGION_BEGIN, &[user.task, name, stack]),
            Kind::RegionEnd => self.emit(m, ev::REGION_END, &[user.task, name, stack]),
            Kind::Label => self.emit(m, ev::GO_LABEL, &[name]),
            _ => {
                let second = self.wire.string(second);
                self.emit(m, ev::USER_LOG, &[user.task, name, second, stack]);
            }
        }
    }

    /// Whether a record about a region is one that the reader takes: an end is that of the innermost, or of one that began before
    /// the trace. Programs need not keep to that.
    fn nests(&mut self, record: &Record, task: u64, name: &[u8]) -> bool {
        let mut hash = Mix::default();
        hash.write(name);
        let region = (task, hash.finish());
        let known = self.regions.get_mut(&record.g);
        match (record.kind(), known) {
            (Kind::RegionBegin, Some(known)) => Wire::push(known, region).is_some(),
            (Kind::RegionBegin, None) => {
                let mut first = Vec::new();
                let is_kept = self.regions.try_reserve(1).is_ok() && Wire::push(&mut first, region).is_some();
                is_kept && self.regions.insert(record.g, first).is_none()
            }
            (Kind::RegionEnd, Some(known)) => known.pop_if(|last| *last == region).is_some() || known.is_empty(),
            _ => true,
        }
    }
}
