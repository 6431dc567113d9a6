//! The same functions where each context is a thread of the randomised model's (`--cfg shuttle`), which switches no stacks: a
//! switch hands the turn to the other context's thread and waits for its own.
//!
//! The M goes along with the turn: its pointer, and the stores it has not shown yet (`primitive::delayed`).

use super::Context;
use crate::primitive::delayed;
use shuttle::thread::{self, Thread};
use std::cell::{Cell, OnceCell, RefCell};
use std::ptr;

/// What is handed over.
struct Turn {
    value: usize,
    machine: *mut u8,
    thread: usize,
}

/// A context's side of it. Tasks of an execution take turns, so that cells do.
struct Strand {
    thread: OnceCell<Thread>,
    turn: Cell<Option<Turn>>,
}

shuttle::thread_local! {
    static MACHINE: Cell<*mut u8> = Cell::new(ptr::null_mut());
    static STRAND: Cell<*const Strand> = Cell::new(ptr::null());
}

std::thread_local! {
    /// Those of this execution, which stay in place.
    static STRANDS: RefCell<Vec<*mut Strand>> = const { RefCell::new(Vec::new()) };
}

/// A new execution: the contexts of the last one are gone.
pub(crate) fn begin() {
    for strand in STRANDS.take() {
        // SAFETY: made by `new_strand`; who used it is gone.
        drop(unsafe { Box::from_raw(strand) });
    }
}

fn new_strand() -> *const Strand {
    let strand = Box::into_raw(Box::new(Strand { thread: OnceCell::new(), turn: Cell::new(None) }));
    STRANDS.with_borrow_mut(|all| all.push(strand));
    strand
}

/// The calling thread's.
fn own_strand() -> *const Strand {
    STRAND.with(|own| {
        if own.get().is_null() {
            let strand = new_strand();
            // SAFETY: alive to the end of the execution.
            let _ = unsafe { (*strand).thread.set(thread::current()) };
            own.set(strand);
        }
        own.get()
    })
}

/// Waits for the calling thread's turn; returns the value it comes with.
fn wait_for_turn(strand: &Strand) -> usize {
    loop {
        if let Some(turn) = strand.turn.take() {
            delayed::go_on_thread(turn.thread);
            MACHINE.with(|m| m.set(turn.machine));
            return turn.value;
        }
        thread::park();
    }
}

/// A context that begins with `entry` on a thread of its own.
///
/// # Safety
/// `entry` may be called once, with the value of whoever switches there first.
pub unsafe fn init(_stack_top: usize, entry: unsafe extern "C-unwind" fn(usize) -> !) -> Context {
    let address = new_strand().expose_provenance();
    let started = thread::spawn(move || {
        let strand: *const Strand = ptr::with_exposed_provenance(address);
        STRAND.with(|own| own.set(strand));
        // SAFETY: the strand lives to the end of the execution; the rest is the caller's promise.
        unsafe {
            let value = wait_for_turn(&*strand);
            entry(value)
        }
    });
    // SAFETY: as above.
    let _ = unsafe { (*ptr::with_exposed_provenance::<Strand>(address)).thread.set(started.thread().clone()) };
    Context { sp: address }
}

/// Saves here into `save`, goes on at `to`; returns the value of whoever switches back.
///
/// # Safety
/// `to` was made by `init` or saved by a switch, and is resumed once.
pub unsafe fn switch(save: *mut Context, to: *const Context, value: usize) -> usize {
    let own = own_strand();
    // SAFETY: the caller's promise; strands live to the end of the execution. `save` is written before the turn goes.
    unsafe {
        let next: *const Strand = ptr::with_exposed_provenance((*to).sp);
        (*save).sp = own.expose_provenance();
        let turn = Turn { value, machine: current_get(), thread: delayed::current_thread() };
        assert!((*next).turn.replace(Some(turn)).is_none(), "a context is resumed once");
        (*next).thread.get().expect("started").unpark();
        wait_for_turn(&*own)
    }
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn call_to_the_end(_function: *const (), _a: usize, _b: usize, _c: usize) -> usize {
    panic!("a model's host is no C code")
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn stack_word(_at: usize) -> usize {
    panic!("a model looks at no stacks")
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn set_stack_word(_at: usize, _word: usize) {
    panic!("a model looks at no stacks")
}

/// The M whose turn it is.
pub fn current_get() -> *mut u8 {
    MACHINE.with(Cell::get)
}

/// Sets it.
///
/// # Safety
/// What it points to outlives the thread's use of it.
pub unsafe fn current_set(value: *mut u8) {
    MACHINE.with(|m| m.set(value));
}
