//! The switch: values both ways, callee-saved registers of both kinds, and the thread-local.

use super::{Context, current_get, current_set, init, switch};
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::sys::thread;
use std::hint::black_box;

const STACK_WORDS: usize = 4096;

/// Two contexts and the stack of the second.
struct Pair {
    main: Context,
    other: Context,
    _stack: Vec<u128>,
}

impl Pair {
    fn new(body: unsafe extern "C-unwind" fn(usize) -> !) -> Box<Self> {
        let mut stack = vec![0u128; STACK_WORDS];
        let top = stack.as_mut_ptr().expose_provenance() + STACK_WORDS * 16;
        // SAFETY: the stack is the pair's and outlives every switch.
        let other = unsafe { init(top, body) };
        Box::new(Self { main: Context::default(), other, _stack: stack })
    }

    /// # Safety
    /// The second context has not ended.
    unsafe fn visit(this: *mut Self, value: usize) -> usize {
        // SAFETY: the pair is alive and belongs to the calling thread.
        unsafe { switch(&raw mut (*this).main, &raw const (*this).other, value) }
    }

    /// # Safety
    /// Called on the second stack.
    unsafe fn back(this: *mut Self, value: usize) -> usize {
        // SAFETY: as above.
        unsafe { switch(&raw mut (*this).other, &raw const (*this).main, value) }
    }
}

/// First gets the pair's address, then adds one to each value.
unsafe extern "C-unwind" fn add_one(pair: usize) -> ! {
    let pair: *mut Pair = std::ptr::with_exposed_provenance_mut(pair);
    let mut value = 0;
    loop {
        // SAFETY: on the second stack of the pair.
        value = unsafe { Pair::back(pair, value + 1) };
    }
}

/// Overwrites what a function may keep in callee-saved registers, integers and floats, at every turn.
unsafe extern "C-unwind" fn busy(pair: usize) -> ! {
    let pair: *mut Pair = std::ptr::with_exposed_provenance_mut(pair);
    let mut ints = [1u64, 2, 3, 4, 5, 6, 7, 8];
    let mut floats = [0.5f64; 8];
    loop {
        for i in 0..8 {
            ints[i] = black_box(ints[i].wrapping_mul(31) + 1);
            floats[i] = black_box(floats[i] * 0.5 + 1.0);
        }
        // SAFETY: on the second stack of the pair.
        unsafe { Pair::back(pair, black_box(ints.iter().fold(0, |a, &b| a ^ b) as usize)) };
    }
}

#[test]
fn switch_goes_there_and_back_with_a_value() {
    let pair = Box::into_raw(Pair::new(add_one));
    // SAFETY: one thread uses the pair; `add_one` does not end.
    unsafe {
        assert_eq!(Pair::visit(pair, pair.expose_provenance()), 1);
        for i in 0..100_000 {
            assert_eq!(Pair::visit(pair, i), i + 1);
        }
        drop(Box::from_raw(pair));
    }
}

#[test]
fn switch_keeps_the_callers_integers_and_floats() {
    let pair = Box::into_raw(Pair::new(busy));
    let (mut ints, mut floats) = ([0u64; 6], [0.0f64; 8]);
    // SAFETY: one thread uses the pair; `busy` does not end.
    unsafe {
        Pair::visit(pair, pair.expose_provenance());
        for round in 1..=1_000u64 {
            for (i, v) in ints.iter_mut().enumerate() {
                *v = v.wrapping_add(i as u64 + 1);
            }
            for (i, v) in floats.iter_mut().enumerate() {
                *v += i as f64;
            }
            Pair::visit(pair, 0);
            assert!(ints.iter().enumerate().all(|(i, &v)| v == round * (i as u64 + 1)));
            assert!(floats.iter().enumerate().all(|(i, &v)| v == round as f64 * i as f64));
        }
        drop(Box::from_raw(pair));
    }
}

#[test]
fn stack_pointer_of_a_new_stack_is_aligned_for_vector_stores() {
    unsafe extern "C-unwind" fn report(pair: usize) -> ! {
        #[repr(align(16))]
        struct Aligned([u8; 16]);
        let pair: *mut Pair = std::ptr::with_exposed_provenance_mut(pair);
        let local = black_box(Aligned([7; 16]));
        loop {
            // SAFETY: on the second stack of the pair.
            unsafe { Pair::back(pair, (&raw const local.0).addr() % 16) };
        }
    }
    let pair = Box::into_raw(Pair::new(report));
    // SAFETY: one thread uses the pair; `report` does not end.
    unsafe {
        assert_eq!(Pair::visit(pair, pair.expose_provenance()), 0);
        drop(Box::from_raw(pair));
    }
}

#[inline(never)]
unsafe fn suspended_inside(pair: *mut Pair, value: usize) -> usize {
    // SAFETY: on the second stack of the pair.
    unsafe { Pair::back(pair, black_box(value)) + black_box(1) }
}

unsafe extern "C-unwind" fn suspends_inside(pair: usize) -> ! {
    let pair: *mut Pair = std::ptr::with_exposed_provenance_mut(pair);
    let mut value = 0;
    loop {
        // SAFETY: as above.
        value = unsafe { suspended_inside(pair, value) };
    }
}

unsafe extern "C" fn show_frames(text: *mut std::ffi::c_void) {
    // SAFETY: the test's own string.
    unsafe { *text.cast::<String>() = std::backtrace::Backtrace::force_capture().to_string() };
}

#[test]
fn call_on_a_suspended_stack_sees_its_frames_and_leaves_it_as_it_was() {
    let pair = Box::into_raw(Pair::new(suspends_inside));
    // SAFETY: one thread uses the pair; what runs on its stack does not end.
    unsafe {
        Pair::visit(pair, pair.expose_provenance());
        for i in 1..=100 {
            let mut text = String::new();
            super::call_on((*pair).other.stack_pointer(), show_frames, (&raw mut text).cast());
            assert!(text.contains("suspended_inside") && text.contains("suspends_inside"), "{text}");
            assert!(!text.contains("leaves_it_as_it_was"), "{text}"); // this function's are on another stack
            assert_eq!(Pair::visit(pair, 10 * i), 10 * i + 1);
        }
        drop(Box::from_raw(pair));
    }
}

#[test]
fn current_pointer_belongs_to_the_thread() {
    let mut word = 0u8;
    assert!(current_get().is_null());
    // SAFETY: `word` outlives its use; the pointer is taken back below.
    unsafe { current_set(&raw mut word) };
    assert_eq!(current_get(), &raw mut word);
    std::thread::spawn(|| assert!(current_get().is_null())).join().expect("the other thread sees its own");
    // SAFETY: null points at nothing.
    unsafe { current_set(std::ptr::null_mut()) };
}

extern "C-unwind" fn add(a: usize, b: usize, c: usize) -> usize {
    a + 10 * b + 100 * c
}

#[test]
fn call_to_the_end_passes_three_values_and_the_result() {
    // SAFETY: a C function of three words.
    assert_eq!(unsafe { super::call_to_the_end(add as *const (), 1, 2, 3) }, 321);
}

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut u8) -> !;
}

static TID: AtomicU32 = AtomicU32::new(0);
static CAME_BACK: AtomicU32 = AtomicU32::new(0);

extern "C-unwind" fn end_this_thread() {
    TID.store(thread::tid(), Ordering::Release); // pairs with the Acquire of the waiting test
    // SAFETY: any pointer will do.
    unsafe { pthread_exit(std::ptr::null_mut()) }
}

unsafe extern "C-unwind" fn thread_that_is_ended(_: *mut u8) {
    // SAFETY: a C function without arguments.
    unsafe { super::call_to_the_end(end_this_thread as *const (), 0, 0, 0) };
    CAME_BACK.store(1, Ordering::Relaxed);
}

/// The state letter of a thread of this process, or none once it is gone.
fn state_of(tid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[test]
fn thread_ended_by_unwinding_stays_in_the_call() {
    // SAFETY: the function may run on any thread.
    unsafe { thread::spawn_raw(thread_that_is_ended, std::ptr::null_mut()) }.expect("a thread");
    let tid = loop {
        match TID.load(Ordering::Acquire) {
            0 => std::thread::yield_now(),
            tid => break tid,
        }
    };
    // Asleep for good: neither gone, nor on its way through the frames above.
    while state_of(tid) != Some('S') {
        assert!(state_of(tid).is_some(), "the thread ended");
        std::thread::yield_now();
    }
    assert_eq!(CAME_BACK.load(Ordering::Relaxed), 0);
}
