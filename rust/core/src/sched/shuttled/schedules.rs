//! Which schedules a test is run in, and how one of them is run again.
//!
//! Schedule n is made from the number n alone: by turns a walk by chance at each step, one that mostly stays with the thread
//! that runs, and PCT (Burckhardt and others, ASPLOS 2010): threads have priorities by chance, which change a few times.
//! `SHUTTLE` says how many, `SHUTTLE_SEED` the first; a failure says which one it was.

use crate::{context, primitive, sys};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many schedules of each test unless `SHUTTLE` says it.
const COUNT: u64 = 500;
/// How many one process runs: 35 KB of each stay.
const BATCH: u64 = 5_000;
/// A schedule of so many steps does not end: whoever could go on with it waits for something else for ever. The longest that
/// ended had a tenth of it.
const STEPS_MOST: usize = 200_000;
/// PCT: within how many steps priorities change, and how often.
const CHANGES_WITHIN: u64 = 3_000;
const CHANGES: usize = 4;
/// PCT: after so many steps all priorities are drawn anew, so that no thread spins for ever for one of a lower.
const DRAWN_AGAIN: u64 = 8_000;

std::thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
    static IS_DONE: Cell<bool> = const { Cell::new(false) };
}

/// The number of the schedule that runs.
pub(super) fn seed() -> u64 {
    SEED.get()
}

enum Way {
    Walk,
    Staying,
    Priorities { of: Vec<u64>, lowest: u64, changes: [u64; CHANGES] },
}

struct Schedules {
    next: u64,
    end: u64,
    random: u64,
    steps: u64,
    way: Way,
}

impl Schedules {
    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn by_priority(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> TaskId {
        let drawn: Vec<u64> = (0..64).map(|_| self.random() >> 1).collect();
        let Way::Priorities { of, lowest, changes } = &mut self.way else { unreachable!("asked for this way only") };
        if of.is_empty() || self.steps.is_multiple_of(DRAWN_AGAIN) {
            *of = drawn;
        }
        if (is_yielding || changes.contains(&self.steps))
            && let Some(task) = current
        {
            let place = usize::from(task) % of.len();
            *lowest += 1;
            of[place] = (1 << 63) + *lowest;
        }
        let first = runnable.iter().min_by_key(|task| of[usize::from(task.id()) % of.len()]);
        first.expect("somebody can run").id()
    }
}

impl Scheduler for Schedules {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.next == self.end {
            return None;
        }
        let seed = self.next;
        self.next += 1;
        self.steps = 0;
        // splitmix64: numbers that follow one another shall have nothing in common.
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.random = (z ^ (z >> 31)) | 1;
        self.way = match seed % 3 {
            0 => Way::Walk,
            1 => Way::Staying,
            _ => {
                let changes = std::array::from_fn(|_| self.random() % CHANGES_WITHIN);
                Way::Priorities { of: Vec::new(), lowest: 0, changes }
            }
        };
        SEED.set(seed);
        IS_DONE.set(false);
        sys::clock::begin();
        sys::memory::begin();
        context::machine::begin();
        primitive::begin_execution(self.random());
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        if IS_DONE.get() {
            return None; // Ms never end: what is left of them is dropped
        }
        self.steps += 1;
        let random = self.random();
        let any = |random: u64| runnable[random as usize % runnable.len()].id();
        Some(match self.way {
            Way::Walk => any(random),
            Way::Staying => {
                let stays = !is_yielding && !random.is_multiple_of(16);
                let same = current.filter(|&id| stays && runnable.iter().any(|task| task.id() == id));
                same.unwrap_or_else(|| any(random / 16))
            }
            Way::Priorities { .. } => self.by_priority(runnable, current, is_yielding),
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.random()
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

/// Runs `body` in many schedules. What an execution leaves is never freed, as runtimes and Ms are not: a process runs so
/// many, and the test starts others for the rest.
pub(super) fn explore(body: fn()) {
    let first = number("SHUTTLE_SEED");
    let count = number("SHUTTLE").unwrap_or(if first.is_some() { 1 } else { COUNT });
    let (mut first, end) = (first.unwrap_or(0), first.unwrap_or(0) + count);
    while end - first > BATCH {
        first += BATCH;
        run_elsewhere(first - BATCH);
    }
    explore_from(first, end - first, body);
}

fn run_elsewhere(first: u64) {
    let (program, thread) = (std::env::current_exe().expect("a path"), std::thread::current());
    let mut command = std::process::Command::new(program);
    command.args([thread.name().expect("a test"), "--exact", "--nocapture", "--test-threads=1"]);
    command.env("SHUTTLE_SEED", first.to_string()).env("SHUTTLE", BATCH.to_string());
    let done = command.output().expect("starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn explore_from(first: u64, count: u64, body: fn()) {
    let mut config = Config::new();
    config.stack_size = 128 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS_MOST);
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None; // the number says it
    let schedules = Schedules { next: first, end: first + count, random: 1, steps: 0, way: Way::Walk };
    let runner = Runner::new(schedules, config);
    let result = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            body();
            IS_DONE.set(true);
            shuttle::thread::yield_now(); // asks for the next task, which there is not
        })
    }));
    if let Err(payload) = result {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        eprintln!("schedule {} failed; again: make shuttle SEED={} TEST={name}", seed(), seed());
        resume_unwind(payload);
    }
}
