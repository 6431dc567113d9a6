//! A small measuring loop: samples of many operations, the median and the spread between them.
//!
//! In place of criterion, whose thirty crates every `cargo test` would compile: what is measured here are nanoseconds of
//! loops that do nothing else, for which a median over samples is enough.

use std::io::Write;
use std::time::Instant;

/// Samples of each measurement; odd, so that the median is one of them.
const SAMPLES: usize = 51;

/// Prints the machine, once at the start of a bench.
pub(crate) fn header(bench: &str) {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.unwrap_or(std::env::consts::ARCH);
    print(&format!("{bench}: {model}, {cpus} CPUs, Linux {}", kernel.trim()));
    print(&format!("{:<44}{:>10}{:>10}{:>10}", "ns per operation", "median", "10th", "90th"));
}

/// Runs `sample`, which does `operations`, and prints what one operation takes.
pub(crate) fn measure(name: &str, operations: u64, mut sample: impl FnMut()) {
    sample(); // warms caches, pools and branch predictors
    let mut ns: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            sample();
            start.elapsed().as_nanos() as f64 / operations as f64
        })
        .collect();
    ns.sort_by(f64::total_cmp);
    let at = |percent: usize| ns[(SAMPLES - 1) * percent / 100];
    print(&format!("{name:<44}{:>10.2}{:>10.2}{:>10.2}", at(50), at(10), at(90)));
}

pub(crate) fn print(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}
