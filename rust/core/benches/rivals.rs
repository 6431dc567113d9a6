//! The allocator beside glibc's, mimalloc and jemalloc, in processes of their own that take turns:
//!
//!     cargo bench --bench rivals -- [rounds]
//!
//! The patterns are those of mimalloc-bench that fit, written anew: alloc-test (random sizes, random order of death),
//! larson (threads that end and leave their objects to the next), xmalloc-test (one thread allocates, another frees) and
//! cache-scratch (threads write to small objects that came from one). A rival is what LD_PRELOAD makes of `malloc`; a
//! thread of ours has a cache, as a P does.

use gort_core::alloc::{Cache, Config, Heap};
use gort_core::primitive::shared::Shared;
use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const RIVALS: [(&str, &str); 4] = [
    ("gort", ""),
    ("glibc", ""),
    ("mimalloc", "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2"),
    ("jemalloc", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
];
/// Names the allocator that a child measures.
const CHILD: &str = "GORT_BENCH_RIVAL";
const ROUNDS: usize = 7;
/// Samples of each pattern in a child; the fastest counts, rounds give the spread.
const SAMPLES: usize = 7;
const THREADS: usize = 2;
const STEPS: usize = 400_000;
const ALIVE: usize = 4096;
/// Objects between a producer and its consumer at most.
const RING: usize = 1024;

/// What one thread has of an allocator.
trait Memory {
    fn alloc(&mut self, bytes: usize) -> *mut u8;
    fn free(&mut self, object: *mut u8);
}

impl Memory for Cache {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        Cache::alloc(self, bytes)
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8) {
        // SAFETY: from the same heap, freed once.
        unsafe { Cache::free(self, object) };
    }
}

struct Malloc;

impl Memory for Malloc {
    #[inline(always)]
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        // SAFETY: malloc.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline(always)]
    fn free(&mut self, object: *mut u8) {
        // SAFETY: from malloc, freed once.
        unsafe { libc::free(object.cast()) };
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }

    /// 16 to 1,000 bytes, the small ones more often.
    fn bytes(&mut self) -> usize {
        16 + (self.next() % 32) * (self.next() % 32)
    }
}

/// Writes the object's first word, as its user does; the compiler no longer knows where it is from.
#[inline(always)]
fn touch(object: *mut u8) -> *mut u8 {
    let mut object = object;
    // SAFETY: at least 8 bytes; no instruction at all.
    unsafe {
        object.cast::<u64>().write(1);
        std::arch::asm!("/* {0} */", inout(reg) object, options(readonly, nostack, preserves_flags));
    }
    object
}

fn pairs(memory: &mut impl Memory, bytes: usize) {
    for _ in 0..STEPS {
        let object = touch(memory.alloc(black_box(bytes)));
        memory.free(object);
    }
}

/// alloc-test: of `alive` one dies at random and another comes.
fn replace(memory: &mut impl Memory, alive: &mut [usize], steps: usize, seed: u64) {
    let mut random = Random(seed);
    for _ in 0..steps {
        let slot = random.next() % alive.len();
        memory.free(ptr::with_exposed_provenance_mut(alive[slot]));
        alive[slot] = touch(memory.alloc(random.bytes())).expose_provenance();
    }
}

fn filled(memory: &mut impl Memory, count: usize) -> Vec<usize> {
    let mut random = Random(7);
    (0..count).map(|_| touch(memory.alloc(random.bytes())).expose_provenance()).collect()
}

fn clear(memory: &mut impl Memory, alive: &[usize]) {
    alive.iter().for_each(|&object| memory.free(ptr::with_exposed_provenance_mut(object)));
}

/// larson: each thread replaces objects of its own and leaves the rest to a new thread, ten times.
fn larson<M: Memory>(make: &(impl Fn() -> M + Sync)) {
    thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || {
                let mut alive = filled(&mut make(), ALIVE / 4);
                for turn in 0..10 {
                    let inherits = move || {
                        replace(&mut make(), &mut alive, STEPS / 10 / THREADS, (seed * 10 + turn) as u64);
                        alive
                    };
                    alive = thread::scope(|inner| inner.spawn(inherits).join()).expect("a thread of larson");
                }
                clear(&mut make(), &alive);
            });
        }
    });
}

/// xmalloc-test: one thread allocates, another frees.
fn passed<M: Memory>(make: &(impl Fn() -> M + Sync)) {
    let ring: Vec<_> = (0..RING).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
    let (sent, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut memory = make();
            let mut at = 0;
            while at < STEPS {
                let there = sent.load(Ordering::Acquire); // pairs with the Release of `sent`
                if there == at {
                    thread::yield_now();
                }
                (at..there).for_each(|i| memory.free(ring[i % RING].load(Ordering::Relaxed)));
                at = there;
                taken.store(at, Ordering::Release); // pairs with the Acquire of `taken`
            }
        });
        let mut memory = make();
        let mut at = 0;
        while at < STEPS {
            let room = (taken.load(Ordering::Acquire) + RING).min(STEPS);
            if room == at {
                thread::yield_now();
            }
            (at..room).for_each(|i| ring[i % RING].store(touch(memory.alloc(64)), Ordering::Relaxed));
            at = room;
            sent.store(at, Ordering::Release);
        }
    });
}

/// cache-scratch: each thread gets an object of the first one's, frees it, and works on objects of its own.
fn scratch<M: Memory>(make: &(impl Fn() -> M + Sync)) {
    let mut memory = make();
    let first: Vec<_> = (0..THREADS).map(|_| touch(memory.alloc(8)).expose_provenance()).collect();
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for &object in &first {
            let begin = &begin;
            scope.spawn(move || {
                let mut memory = make();
                begin.wait();
                memory.free(ptr::with_exposed_provenance_mut(object));
                for _ in 0..STEPS / THREADS {
                    let object = touch(memory.alloc(8));
                    (0..50).for_each(|_| _ = touch(object));
                    memory.free(object);
                }
            });
        }
    });
}

/// Prints the fastest sample of a pattern, ns per step.
fn sample(name: &str, mut pattern: impl FnMut()) {
    let mut once = || {
        let start = Instant::now();
        pattern();
        start.elapsed().as_nanos() as f64 / STEPS as f64
    };
    once(); // warms
    let best = (0..SAMPLES).map(|_| once()).fold(f64::INFINITY, f64::min);
    print(&format!("{name}\t{best}"));
}

fn patterns<M: Memory>(make: impl Fn() -> M + Sync, after: impl Fn(&str)) {
    for bytes in [16, 64, 256] {
        let mut memory = make();
        sample(&format!("same thread, pairs of {bytes} B"), || pairs(&mut memory, bytes));
    }
    after("pairs");
    let mut memory = make();
    let mut alive = filled(&mut memory, ALIVE);
    sample("same thread, alloc-test", || replace(&mut memory, &mut alive, STEPS, 1));
    clear(&mut memory, &alive);
    after("alloc-test");
    sample("freed by another thread", || passed(&make));
    after("freed by another thread");
    sample("larson", || larson(&make));
    after("larson");
    sample("cache-scratch", || scratch(&make));
    after("cache-scratch");
}

fn child(rival: &str) {
    if rival != "gort" {
        return patterns(|| Malloc, |_| ());
    }
    let heap: Shared<Heap> = Heap::new(Config::default()).expect("a heap");
    let before = std::cell::RefCell::new(heap.stats());
    patterns(
        || heap.cache().expect("a cache"),
        |name| {
            let (now, was) = (heap.stats(), before.borrow().clone());
            let allocs = (now.allocs_objects - was.allocs_objects) as f64;
            let hits = (now.cache_hits - was.cache_hits) as f64;
            let locks = (now.lock_ops - was.lock_ops).max(1) as f64;
            let line = format!("#{name}: {:.2} % hits, a lock per {:.0}", 100.0 * hits / allocs, allocs / locks);
            print(&line);
            before.replace(now);
        },
    );
}

/// What a child printed: ns by pattern, and remarks.
fn run(rival: &str, preload: &str) -> (BTreeMap<String, f64>, Vec<String>) {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program).env(CHILD, rival).env("LD_PRELOAD", preload).output().expect("a child");
    assert!(output.status.success(), "{rival}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (remarks, times): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let times = times.iter().filter_map(|line| line.split_once('\t'));
    let times = times.map(|(name, ns)| (name.to_owned(), ns.parse().expect("a number"))).collect();
    (times, remarks.into_iter().map(str::to_owned).collect())
}

fn print(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

fn median(mut ns: Vec<f64>) -> f64 {
    ns.sort_by(f64::total_cmp);
    ns[ns.len() / 2]
}

fn main() {
    if let Ok(rival) = env::var(CHILD) {
        return child(&rival);
    }
    let rounds = env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(ROUNDS);
    let rivals: Vec<_> = RIVALS.iter().filter(|(_, file)| file.is_empty() || Path::new(file).exists()).collect();
    print(&format!("rivals: ns per step, medians of {rounds} rounds; in brackets: how many times ours"));
    let mut all: BTreeMap<String, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut remarks = Vec::new();
    for _ in 0..rounds {
        for (rival, preload) in &rivals {
            let (times, said) = run(rival, preload);
            remarks = if said.is_empty() { remarks } else { said };
            for (name, ns) in times {
                all.entry(name).or_default().entry(rival).or_default().push(ns);
            }
        }
    }
    for (name, by_rival) in &all {
        let ours = median(by_rival["gort"].clone());
        let others = rivals.iter().skip(1).map(|(rival, _)| {
            let ns = median(by_rival[rival].clone());
            format!("  {rival} {ns:.2} ({:.2}x)", ns / ours)
        });
        print(&format!("{name:<30} gort {ours:.2}{}", others.collect::<String>()));
    }
    remarks.iter().for_each(|remark| print(remark));
}
