//! The same functions under loom. A model's threads are coroutines of loom, so the thread-local is loom's too; stacks are
//! never switched in a model, which runs what happens before and after a switch.

use super::Context;
use std::cell::Cell;
use std::ptr;

loom::thread_local! {
    static CURRENT: Cell<*mut u8> = Cell::new(ptr::null_mut());
}

/// No stack is run in a model.
///
/// # Safety
/// None is needed.
pub unsafe fn init(_stack_top: usize, _entry: unsafe extern "C-unwind" fn(usize) -> !) -> Context {
    Context::default()
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn switch(_save: *mut Context, _to: *const Context, _value: usize) -> usize {
    panic!("a model switches no stacks")
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn call_to_the_end(_function: *const (), _a: usize, _b: usize, _c: usize) -> usize {
    panic!("a model has no host")
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn stack_word(_at: usize) -> usize {
    panic!("a model has no stacks")
}

/// Not part of a model.
///
/// # Safety
/// None is needed: it panics.
pub unsafe fn set_stack_word(_at: usize, _word: usize) {
    panic!("a model has no stacks")
}

/// The calling model thread's pointer.
pub fn current_get() -> *mut u8 {
    CURRENT.with(Cell::get)
}

/// Sets the calling model thread's pointer.
///
/// # Safety
/// What it points to outlives the thread's use of it.
pub unsafe fn current_set(value: *mut u8) {
    CURRENT.with(|c| c.set(value));
}
