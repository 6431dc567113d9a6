//! LD_PRELOAD users stay in the chain: this binary runs again with an interposer in front of libc.

use crate::hook;
use crate::made::{CHILD, Folder, HOOKED, Library, passes_alone, patch};
use gort_core::boundary::elf::{Originals, objects};
use std::ffi::CStr;
use std::path::Path;

/// What the interposer answers.
const ANSWER: i32 = 4242;

/// In the child: a client of libc's getppid, replaced; the original is the interposer's.
fn patch_the_client(client: &Path) {
    hook!(HOOK);
    let client = Library::open(client, 0);
    let (_patched, left) = patch(&client.object(), c"getppid", &HOOK);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(client.call(0), ANSWER + HOOKED);
    assert_eq!(client.call(0), ANSWER + HOOKED);
    assert_eq!(HOOK.hits(), 2);
    // What nobody interposes is libc's.
    let objects = objects().expect("memory");
    let yields = Originals::new(&objects).find(c"sched_yield", Some(baseline())).expect("memory").expect("libc's");
    assert!(objects.iter().any(|o| o.is_c_library() && o.has_code(yields.address)));
}

/// The version most of libc has.
fn baseline() -> &'static CStr {
    if cfg!(target_arch = "x86_64") { c"GLIBC_2.2.5" } else { c"GLIBC_2.17" }
}

#[test]
fn test_preloaded_interposer_is_the_original() {
    if let Some(client) = std::env::var_os(CHILD) {
        return patch_the_client(Path::new(&client));
    }
    let folder = Folder::new("preload");
    let client = "int getppid(void); int call(int x) { return getppid(); }";
    // Needs libc, so it has versions of what it needs and none of its own: dlvsym does not find it.
    let needs_libc = "int getpid(void); int getppid(void) { return getpid() ? 4242 : 0; }";
    let alone = "int getppid(void) { return 4242; }";
    let interposers = [
        folder.build("needs", needs_libc, &[]),
        folder.build("sysv", needs_libc, &["-Wl,--hash-style=sysv"]),
        folder.build("alone", alone, &["-nostdlib"]),
    ];
    for (binding, preload) in ["lazy", "now"].iter().flat_map(|b| interposers.iter().map(move |p| (b, p))) {
        let client = folder.build(&format!("client-{binding}"), client, &[&format!("-Wl,-z,{binding}")]);
        passes_alone(
            "preload::test_preloaded_interposer_is_the_original",
            &[(CHILD, client.as_os_str()), ("LD_PRELOAD", preload.as_os_str())],
        );
    }
}
