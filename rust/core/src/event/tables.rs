//! Stacks that records tell by number. They are told once and stay until the trace ends: whoever is on one is on it often.

use crate::primitive::tries::{try_copy, try_push};
use std::collections::HashMap;

/// One place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// Most stacks that are told apart; what is on others is at a place that is not known.
const MOST: usize = 1 << 20;

/// Frames and stacks of a trace.
#[derive(Default)]
pub struct Tables {
    frames: Vec<Frame>,
    stacks: Vec<Vec<u32>>,
    /// What the host tells frames by, and stacks of those.
    by_key: HashMap<(u64, u64), u32>,
    by_frames: HashMap<Vec<u32>, u32>,
}

impl Tables {
    /// The number of the frame that the host knows by `key`; `make` tells of one that is new. `None`: memory is refused.
    pub fn frame(&mut self, key: (u64, u64), make: impl FnOnce() -> Option<Frame>) -> Option<u32> {
        if let Some(&known) = self.by_key.get(&key) {
            return Some(known);
        }
        self.by_key.try_reserve(1).ok()?;
        let number = u32::try_from(self.frames.len()).ok()?;
        try_push(&mut self.frames, make()?)?;
        self.by_key.insert(key, number);
        Some(number)
    }

    /// The number of a stack of these frames, the newest first; 0: memory is refused, or there is none.
    pub fn stack(&mut self, frames: &[u32]) -> u32 {
        if frames.is_empty() {
            return 0;
        }
        if let Some(&known) = self.by_frames.get(frames) {
            return known;
        }
        self.add_stack(frames).unwrap_or(0)
    }

    fn add_stack(&mut self, frames: &[u32]) -> Option<u32> {
        if self.stacks.len() >= MOST {
            return None;
        }
        let (key, list) = (try_copy(frames)?, try_copy(frames)?);
        self.by_frames.try_reserve(1).ok()?;
        try_push(&mut self.stacks, list)?;
        let number = self.stacks.len() as u32;
        self.by_frames.insert(key, number);
        Some(number)
    }

    /// Frames of a stack, and their numbers.
    pub fn frames_of(&self, stack: u32) -> impl Iterator<Item = (u32, &Frame)> {
        let frames = (stack as usize).checked_sub(1).and_then(|i| self.stacks.get(i));
        frames.into_iter().flatten().filter_map(|&n| Some((n, self.frames.get(n as usize)?)))
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_one_number() {
        let mut tables = Tables::default();
        let frame = |name: &str| Some(Frame { name: name.to_owned(), file: "f.py".to_owned(), line: 3 });
        let a = tables.frame((1, 0), || frame("a")).unwrap();
        let b = tables.frame((2, 0), || frame("b")).unwrap();
        assert_eq!(tables.frame((1, 0), || unreachable!()), Some(a));
        let stack = tables.stack(&[b, a]);
        assert_eq!((tables.stack(&[b, a]), tables.stack(&[a])), (stack, stack + 1));
        assert_eq!((tables.stack(&[]), tables.frames_of(0).count()), (0, 0));
        assert_eq!(tables.frames_of(stack).map(|(n, f)| (n, &f.name[..])).collect::<Vec<_>>(), [(b, "b"), (a, "a")]);
    }
}
