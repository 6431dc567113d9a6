//! This process itself: its program's own entries, who is who among its objects, and what its pages allow.

use crate::hook;
use crate::made::{CHILD, HOOKED, passes_alone, patch, permissions};
use gort_core::boundary::elf::{Error, Page, Role, objects};

#[test]
fn test_program_calls_the_hook_and_then_libc_again() {
    hook!(HOOK);
    // SAFETY: no arguments, cannot fail. Not inlined, and nothing is between: the call loads the slot each time.
    let parent = || unsafe { libc::getppid() };
    let before = parent();
    let program = objects().expect("memory").swap_remove(0);
    let (mut patched, left) = patch(&program, c"getppid", &HOOK);
    assert!(left.is_empty());
    assert!(!patched.entries().is_empty());
    assert_eq!(parent(), before + HOOKED);
    let slot = patched.entries()[0].slot;
    assert_eq!(program.page(slot) == Page::ReadOnly, permissions(slot) == "r--p");
    patched.undo().expect("writable");
    assert_eq!((parent(), HOOK.hits()), (before, 1));
}

#[test]
fn test_objects_say_what_they_are() {
    let objects = objects().expect("memory");
    let program = &objects[0];
    assert_eq!(program.role, Role::Program);
    assert_eq!(program.path, std::env::current_exe().expect("a path"));
    assert!(program.has_code(test_objects_say_what_they_are as *const () as usize));
    assert!(program.code().any(|range| range.contains(&(test_objects_say_what_they_are as *const () as usize))));
    let one = |role| {
        let mut found = objects.iter().filter(|o| o.role == role);
        let first = found.next().unwrap_or_else(|| panic!("no {role:?}"));
        assert!(role == Role::CLibrary || found.next().is_none(), "two of {role:?}");
        first
    };
    let libc_object = one(Role::CLibrary);
    assert!(libc_object.is_c_library() && libc_object.file_name() == "libc.so.6");
    assert!(matches!(one(Role::Loader).hold(), Err(Error::Protected { .. })));
    // SAFETY: no pointers. Emulators and some kernels give a process no vdso.
    if unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } != 0 {
        assert!(matches!(one(Role::Vdso).hold(), Err(Error::Protected { .. })));
    }
}

/// Alone in a process: while an entry changes, its page is writable, and other tests change entries.
#[test]
fn test_pages_are_as_the_headers_say() {
    if std::env::var_os(CHILD).is_none() {
        return passes_alone("process::test_pages_are_as_the_headers_say", &[(CHILD, "1".as_ref())]);
    }
    let mut count = [0, 0];
    for object in objects().expect("memory") {
        let Ok(held) = object.hold() else { continue };
        for import in held.imports().expect("readable") {
            let (expected, index) = match object.page(import.slot) {
                Page::Writable => ("rw-p", 0),
                Page::ReadOnly => ("r--p", 1),
                Page::Untouchable => panic!("{import:?} of {}", object.path.display()),
            };
            assert_eq!(permissions(import.slot), expected, "{import:?} of {}", object.path.display());
            count[index] += 1;
        }
    }
    assert!(count[1] > 0, "{count:?}");
}
