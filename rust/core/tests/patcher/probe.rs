//! A library for `fixed`: replaces the program's getppid when it is told to. Loaded by a C program that is not position
//! independent, which no Rust test program is.
#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(model)
))]

use gort_core::boundary::elf::{Originals, objects};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

static ORIGINAL: AtomicUsize = AtomicUsize::new(0);

extern "C" fn hook() -> c_int {
    // SAFETY: what `replace` stored, getppid.
    let original: extern "C" fn() -> c_int = unsafe {
        std::mem::transmute(std::ptr::with_exposed_provenance::<c_void>(ORIGINAL.load(Ordering::Acquire))) // `replace`'s
    };
    original() + 1000
}

/// Number of entries replaced; -1 when the program's PLT does not stand for the function, so that nothing is tested.
#[unsafe(no_mangle)]
pub extern "C" fn replace() -> c_int {
    let objects = objects().expect("memory");
    let program = &objects[0];
    // SAFETY: a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getppid".as_ptr()) };
    if !program.has_code(found.addr()) {
        return -1;
    }
    let held = program.hold().expect("loaded");
    let mut edit = held.edit();
    for import in held.imports().expect("readable").iter().filter(|i| i.symbol == c"getppid") {
        let original = Originals::new(&objects).find(import.symbol, import.version).expect("memory").expect("libc's");
        ORIGINAL.store(original.address, Ordering::Release); // read by the hook
        edit.replace(import, original, (hook as *const ()).expose_provenance()).expect("replaceable");
    }
    c_int::try_from(edit.apply().expect("writable").entries().len()).expect("few")
}
