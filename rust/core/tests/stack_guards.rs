//! Guards and limits of stack slots, each in a child process: what faults, what is refused, and that a refusal leaves
//! the depot usable.
//!
//! Every test runs this binary again with `GORT_TEST_CHILD` set; the child does the deed and the parent looks at its end.

use gort_core::stack::{GuardMode, Stack, StackDepot};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

const SLOT_BYTES: usize = 64 << 10;
const CHILD: &str = "GORT_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test `name` of this file alone, as a child.
fn run_child(name: &str, guard: &str) -> ExitStatus {
    let me = std::env::current_exe().expect("a path");
    let mut command = Command::new(me);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1").env("GORT_GUARD", guard);
    command.stdout(std::process::Stdio::null()).status().expect("a child")
}

fn depot() -> StackDepot {
    StackDepot::new(SLOT_BYTES, GuardMode::detect()).expect("a depot")
}

fn write(address: usize) {
    // SAFETY: an address of a stack the child owns, or one whose fault is what the parent looks for.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: a valid limit; only this child is affected. No core file is wanted from the faults either.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Bytes of address space or data this process has now, from /proc/self/status.
fn used_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|l| l.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

/// In the child: uses a stack from end to end, then touches `below` bytes under its base.
fn touch_below(below: usize) {
    limit(libc::RLIMIT_CORE, 0);
    let depot = depot();
    // Two, so that the one used is not the lowest of a slab, where nothing at all may be mapped below.
    let (first, second) = (depot.allocate().expect("memory"), depot.allocate().expect("memory"));
    let upper = if first.base() > second.base() { first } else { second };
    (upper.base()..upper.top()).step_by(512).for_each(write);
    write(upper.base() - below);
}

fn assert_faults(name: &str, guard: &str) {
    let end = run_child(name, guard);
    assert_eq!(end.signal(), Some(libc::SIGSEGV), "{guard}: {end}");
}

fn installs() -> bool {
    GuardMode::detect() == GuardMode::Install
}

#[test]
fn test_guard_first_byte_below_the_stack_faults() {
    if is_child() {
        return touch_below(1);
    }
    assert_faults("test_guard_first_byte_below_the_stack_faults", "mprotect");
    if installs() {
        assert_faults("test_guard_first_byte_below_the_stack_faults", "install");
    }
}

#[test]
fn test_guard_a_frame_of_sixteen_kib_cannot_step_over_it() {
    if is_child() {
        return touch_below(16 << 10);
    }
    assert_faults("test_guard_a_frame_of_sixteen_kib_cannot_step_over_it", "mprotect");
    if installs() {
        assert_faults("test_guard_a_frame_of_sixteen_kib_cannot_step_over_it", "install");
    }
}

/// Makes process_madvise answer EPERM from here on, as containers' filters do with calls they do not know.
fn refuse_process_madvise() {
    let step = |code: u32, jt: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let call = libc::SYS_process_madvise as u32;
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the number of the call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives through the call and is for this child alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        assert_eq!(libc::syscall(libc::SYS_process_madvise, -1, 0, 0, 0, 0), -1);
        assert_eq!(*libc::__errno_location(), libc::EPERM);
    }
}

#[test]
fn test_guard_is_there_where_one_call_for_all_guards_is_refused() {
    if is_child() {
        refuse_process_madvise();
        return touch_below(1);
    }
    if installs() {
        assert_faults("test_guard_is_there_where_one_call_for_all_guards_is_refused", "install");
    }
}

/// How many of the stacks have their top page in memory.
fn committed(stacks: &[Stack]) -> usize {
    // SAFETY: the page below a stack's top is mapped.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let is_there = |stack: &&Stack| {
        let mut there = 0u8;
        let start = std::ptr::with_exposed_provenance_mut((stack.top() - 1) / page * page);
        // SAFETY: one page, one byte for the answer.
        assert_eq!(unsafe { libc::mincore(start, page, &raw mut there) }, 0);
        there & 1 == 1
    };
    stacks.iter().filter(is_there).count()
}

#[test]
fn test_top_pages_are_committed_ahead_only_where_many_stacks_are_and_all_faults_still_come() {
    if is_child() {
        let depot = depot();
        let few: Vec<Stack> = (0..1024).map(|_| depot.allocate().expect("memory")).collect();
        assert_eq!(committed(&few), 0);
        let more: Vec<Stack> = (0..128).map(|_| depot.allocate().expect("memory")).collect();
        // None where the kernel has not the call.
        assert!([0, 128].contains(&committed(&more)), "{}", committed(&more));
        assert!(more.iter().all(|stack| !is_readable(stack.base() - 1)));
        return;
    }
    for guard in if installs() { vec!["install", "mprotect"] } else { vec!["mprotect"] } {
        let name = "test_top_pages_are_committed_ahead_only_where_many_stacks_are_and_all_faults_still_come";
        assert!(run_child(name, guard).success(), "{guard}");
    }
}

#[test]
fn test_guard_none_lets_the_write_pass() {
    if is_child() {
        assert_eq!(depot().mode(), GuardMode::None);
        return touch_below(1);
    }
    assert!(run_child("test_guard_none_lets_the_write_pass", "none").success());
}

#[test]
fn test_guard_still_faults_after_its_pages_were_released() {
    if is_child() {
        limit(libc::RLIMIT_CORE, 0);
        let depot = depot();
        let mut stacks: Vec<Stack> = (0..600).map(|_| depot.allocate().expect("memory")).collect();
        stacks.sort_by_key(Stack::base);
        // Not the lowest: below it there may be no mapping at all.
        let upper = stacks[1].base();
        write(upper);
        stacks.into_iter().for_each(|stack| depot.retire(stack)); // two batches and more
        write(upper);
        return write(upper - 1);
    }
    assert_faults("test_guard_still_faults_after_its_pages_were_released", "mprotect");
    if installs() {
        assert_faults("test_guard_still_faults_after_its_pages_were_released", "install");
    }
}

#[test]
fn test_mprotect_cap_reached_is_an_error_and_the_process_goes_on() {
    if is_child() {
        let depot = depot();
        let mut held: Vec<Stack> = Vec::new();
        while let Ok(stack) = depot.allocate() {
            held.push(stack);
            assert!(held.len() <= 17_000, "no cap");
        }
        assert!(held.len() >= 15_000, "only {}", held.len());
        // Mappings are left for everybody else: a thread needs several.
        std::thread::spawn(|| ()).join().expect("a thread still starts");
        depot.free(held.pop().expect("one"));
        write(depot.allocate().expect("the one given back").base());
        return;
    }
    let end = run_child("test_mprotect_cap_reached_is_an_error_and_the_process_goes_on", "mprotect");
    assert!(end.success(), "{end}");
}

#[test]
fn test_address_space_refused_is_an_error_and_what_is_held_stays_usable() {
    if is_child() {
        let depot = depot();
        let mut held = vec![depot.allocate().expect("memory")];
        limit(libc::RLIMIT_AS, used_bytes("VmSize:") + (16 << 20));
        let error = loop {
            match depot.allocate() {
                Ok(stack) => held.push(stack),
                Err(error) => break error,
            }
            assert!(held.len() < 10_000, "no refusal");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory, "{error}");
        // Everybody else still gets memory.
        assert_ne!(reserve(8 << 20), libc::MAP_FAILED, "nothing was left");
        held.iter().for_each(|s| write(s.base()));
        let base = held.last().expect("one").base();
        depot.free(held.pop().expect("one"));
        assert_eq!(depot.allocate().expect("the one given back").base(), base);
        return;
    }
    for guard in ["mprotect", "none"] {
        let end = run_child("test_address_space_refused_is_an_error_and_what_is_held_stays_usable", guard);
        assert!(end.success(), "{guard}: {end}");
    }
}

/// A mapping as others of the process make them.
fn reserve(bytes: usize) -> *mut libc::c_void {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous mapping.
    unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) }
}

/// Whether the kernel can read the byte at `address`, asked without touching it.
fn is_readable(address: usize) -> bool {
    let mut ends = [0; 2];
    // SAFETY: a pipe of this process; write answers EFAULT for memory it cannot read.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let written = libc::write(ends[1], std::ptr::with_exposed_provenance(address), 1);
        ends.iter().for_each(|&end| assert_eq!(libc::close(end), 0));
        written == 1
    }
}

/// Uses up the mappings this process may have, but for about `left`.
fn fill_mappings(left: usize) {
    let page = 4096;
    let pages = 200_000;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping of this function's own, every second page of which gets another protection.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), pages * page, libc::PROT_READ, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        let mut split = 0;
        while split < pages / 2 && libc::mprotect(start.byte_add(split * 2 * page), page, libc::PROT_NONE) == 0 {
            split += 1;
        }
        assert!(split < pages / 2, "vm.max_map_count is larger than this test knows");
        for i in 0..left / 2 {
            assert_eq!(libc::mprotect(start.byte_add((split - 1 - i) * 2 * page), page, libc::PROT_READ), 0);
        }
    }
}

#[test]
fn test_guard_refused_half_way_keeps_the_guarded_slots_and_no_other() {
    if is_child() {
        let depot = depot();
        let mut held: Vec<Stack> = Vec::with_capacity(1000);
        let room = 40;
        fill_mappings(room);
        while let Ok(stack) = depot.allocate() {
            assert!(held.len() < 64, "no refusal");
            held.push(stack);
        }
        assert!(!held.is_empty() && held.len() <= room, "{} slots", held.len());
        for stack in &held {
            write(stack.base());
            assert!(!is_readable(stack.base() - 1), "a slot without a guard");
        }
        let count = held.len();
        held.drain(..).for_each(|s| depot.free(s));
        held.extend((0..count).map(|_| depot.allocate().expect("none was lost")));
        assert!(depot.allocate().is_err());
        return;
    }
    let end = run_child("test_guard_refused_half_way_keeps_the_guarded_slots_and_no_other", "mprotect");
    assert!(end.success(), "{end}");
}

/// RLIMIT_DATA accounts for writable mappings when they are made, as overcommit_memory=2 does.
#[test]
fn test_memory_accounted_for_when_reserved_is_taken_slot_by_slot() {
    if is_child() {
        let depot = depot();
        // Room for 16 slots, less than the 64 of a slab, and for what must be left besides.
        limit(libc::RLIMIT_DATA, used_bytes("VmData:") + (9 << 20));
        let mut held: Vec<Stack> = Vec::new();
        while let Ok(stack) = depot.allocate() {
            (stack.base()..stack.top()).step_by(512).for_each(write);
            held.push(stack);
            assert!(held.len() < 64, "no refusal");
        }
        assert!(held.len() >= 8, "only {}", held.len());
        depot.free(held.pop().expect("one"));
        held.push(depot.allocate().expect("the one given back"));
        limit(libc::RLIMIT_CORE, 0);
        return write(held.iter().map(Stack::base).max().expect("one") - 1);
    }
    assert_faults("test_memory_accounted_for_when_reserved_is_taken_slot_by_slot", "mprotect");
}

#[test]
fn test_forced_guard_the_kernel_has_not_is_an_error() {
    if is_child() {
        // A kernel that has the advice gives a stack; one that has not gives an error, never an unguarded stack.
        let depot = StackDepot::new(SLOT_BYTES, GuardMode::Install).expect("a depot");
        return match depot.allocate() {
            Ok(_) => (),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::OutOfMemory),
        };
    }
    assert!(run_child("test_forced_guard_the_kernel_has_not_is_an_error", "install").success());
}

/// Major and minor number of the kernel.
fn kernel() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn test_emptied_slots_give_up_pages_and_tables_and_get_their_guards_again() {
    if !is_child() {
        let end = run_child("test_emptied_slots_give_up_pages_and_tables_and_get_their_guards_again", "install");
        assert!(end.success(), "{end}");
        return;
    }
    // A kernel without the advice has no such guards to take, nor stacks with them.
    let depot = StackDepot::new(256 << 10, GuardMode::Install).expect("a depot");
    let Ok(first) = depot.allocate() else { return };
    let mut stacks: Vec<Stack> = (1..4096).map(|_| depot.allocate().expect("memory")).collect();
    stacks.push(first);
    stacks.iter().for_each(|stack| write(stack.top() - 8));
    let full = used_bytes("VmPTE:");
    let mut slots: Vec<(usize, usize)> = stacks.iter().enumerate().map(|(i, stack)| (stack.slot_start(), i)).collect();
    let mut bared = 0;
    // SAFETY: this test's stacks, which it does not read before it writes them again.
    unsafe { depot.empty_slots(&mut slots, |_| bared += 1) };
    assert_eq!(bared, stacks.len(), "eight slots fill a table, a slab has 64, and begins with one");
    let freed = full - used_bytes("VmPTE:");
    assert!(kernel() < (6, 14) || freed > 500 << 12, "512 tables of 4 KiB: {freed}");
    for stack in &stacks {
        assert!(depot.guard_again(stack));
        // SAFETY: the end of a stack of this test's.
        assert_eq!(unsafe { std::ptr::with_exposed_provenance::<u8>(stack.top() - 8).read() }, 0, "a new page");
        assert!(is_readable(stack.base()));
        for guarded in [stack.slot_start(), stack.base() - 1] {
            assert!(!is_readable(guarded));
        }
    }
}

#[test]
fn test_slots_that_nobody_has_give_up_pages_and_tables_and_are_given_with_their_guards() {
    if !is_child() {
        let name = "test_slots_that_nobody_has_give_up_pages_and_tables_and_are_given_with_their_guards";
        let end = run_child(name, "install");
        assert!(end.success(), "{end}");
        return;
    }
    let depot = StackDepot::new(256 << 10, GuardMode::Install).expect("a depot");
    let Ok(kept) = depot.allocate() else { return };
    let mut stacks: Vec<Stack> = (1..4096).map(|_| depot.allocate().expect("memory")).collect();
    stacks.iter().chain([&kept]).for_each(|stack| write(stack.top() - 8));
    let mut all: Vec<usize> = stacks.iter().map(Stack::slot_start).collect();
    let (full, reserved) = (used_bytes("VmPTE:"), used_bytes("VmSize:"));
    stacks.drain(..).for_each(|stack| depot.free(stack));
    depot.release_free();
    depot.release_free(); // nothing is left to give
    let freed = full - used_bytes("VmPTE:");
    assert!(kernel() < (6, 14) || freed > 500 << 12, "511 tables of 4 KiB: {freed}");
    // SAFETY: the end of a stack of this test's.
    assert_eq!(unsafe { std::ptr::with_exposed_provenance::<u8>(kept.top() - 8).read() }, 1, "it was in use");
    let again: Vec<Stack> = (1..4096).map(|_| depot.allocate().expect("memory")).collect();
    for stack in &again {
        // SAFETY: as above.
        assert_eq!(unsafe { std::ptr::with_exposed_provenance::<u8>(stack.top() - 8).read() }, 0, "a new page");
        assert!(is_readable(stack.base()));
        for guarded in [stack.slot_start(), stack.base() - 1] {
            assert!(!is_readable(guarded));
        }
    }
    let mut given: Vec<usize> = again.iter().map(Stack::slot_start).collect();
    all.sort_unstable();
    given.sort_unstable();
    assert!(given == all, "the same slots, each once");
    assert!(used_bytes("VmSize:") < reserved + (16 << 20), "no slab was added");
}
