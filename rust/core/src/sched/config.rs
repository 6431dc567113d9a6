//! Numbers a runtime is built with.

use super::policy::Policy;

/// Settings of a runtime, fixed when it is built.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many Ps.
    pub processors: usize,
    /// Virtual bytes of one stack slot, a power of two.
    pub stack_bytes: usize,
    /// At most this many Ms (Go's 10,000).
    pub max_machines: usize,
    /// Idle bundles kept before ended goroutines give theirs back. 4,096 of one touched page each are 16 MiB: thin air;
    /// `benches` spawn and parked memory would move it.
    pub max_idle_bundles: usize,
    /// How long a goroutine may compute while others wait for its P, ns (Go's 10 ms).
    pub slice_ns: u64,
    /// From one look at who is parked, and may give the memory of its stack back, to the next, ns; 0: never.
    pub shrink_ns: u64,
    /// Fewer goroutines than this are not looked at: all of them have less than a MiB.
    pub shrink_least: u64,
    /// In which order those that are ready go on at first.
    pub policy: Policy,
    /// How often sysmon prints a line about the scheduler, ns; 0 for never.
    pub schedtrace_ns: u64,
    /// Seed of the victim and select choices; 0 takes the clock.
    pub seed: u64,
    /// Whoever is ready may be next, as the seed says (`sched::shuffle`). On one P.
    pub shuffles: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            processors: 1,
            stack_bytes: 256 << 10,
            max_machines: 10_000,
            max_idle_bundles: 4096,
            slice_ns: 10_000_000,
            shrink_ns: 1_000_000_000,
            shrink_least: 128,
            policy: Policy::Fifo,
            schedtrace_ns: 0,
            seed: 0,
            shuffles: false,
        }
    }
}
