//! How an object is bound: lazily, at once, without a PLT, by address, by version, by IFUNC, by somebody else.

use crate::hook;
use crate::made::{CLIENT, Folder, HOOKED, Library, find, patch, permissions, set_slot, slot_value};
use gort_core::boundary::elf::{Error, ImportKind, LeftAlone, Originals, Page, objects};
use std::ffi::CStr;

/// Kind and slot of the only import of `symbol`.
fn only(library: &Library, symbol: &CStr) -> (ImportKind, usize) {
    let mut out = Vec::new();
    find(&library.object(), symbol, |i| out.push((i.kind, i.slot)));
    assert_eq!(out.len(), 1, "{symbol:?}");
    out[0]
}

#[test]
fn test_lazy_binding_hook_is_called_every_time() {
    hook!(HOOK);
    let folder = Folder::new("lazy");
    let (provider, client) = folder.pair("lazy_target", &["-Wl,-z,lazy,-z,norelro"]);
    let (kind, slot) = only(&client, c"lazy_target");
    let object = client.object();
    assert_eq!(kind, ImportKind::Call);
    assert_eq!(object.page(slot), Page::Writable);
    assert!(object.has_code(slot_value(slot)), "the slot leads to the resolver");
    let (mut patched, left) = patch(&object, c"lazy_target", &HOOK);
    assert!(left.is_empty());
    assert_eq!([client.call(1), client.call(2), client.call(3)], [2 + HOOKED, 3 + HOOKED, 4 + HOOKED]);
    assert_eq!(HOOK.hits(), 3);
    assert_eq!(patched.entries()[0].original.address, provider.address(c"lazy_target"));
    assert!(patched.is_in_place());
    assert_eq!(patched.undo().expect("writable").restored_count, 1);
    assert_eq!(client.call(1), 2);
    assert_eq!(HOOK.hits(), 3);
}

#[test]
fn test_full_relro_page_is_read_only_again() {
    hook!(HOOK);
    let folder = Folder::new("relro");
    let (_provider, client) = folder.pair("relro_target", &["-Wl,-z,now,-z,relro"]);
    let (_, slot) = only(&client, c"relro_target");
    assert_eq!(client.object().page(slot), Page::ReadOnly);
    assert_eq!(permissions(slot), "r--p");
    let (mut patched, left) = patch(&client.object(), c"relro_target", &HOOK);
    assert!(left.is_empty());
    assert_eq!(permissions(slot), "r--p");
    assert_eq!(client.call(1), 2 + HOOKED);
    assert_eq!(patched.undo().expect("writable").restored_count, 1);
    assert_eq!(permissions(slot), "r--p");
    assert_eq!((client.call(1), HOOK.hits()), (2, 1));
}

#[test]
fn test_bound_at_once_without_relro_needs_no_protection() {
    hook!(HOOK);
    let folder = Folder::new("now");
    let (_provider, client) = folder.pair("now_target", &["-Wl,-z,now,-z,norelro"]);
    let (_, slot) = only(&client, c"now_target");
    assert_eq!((client.object().page(slot), permissions(slot).as_str()), (Page::Writable, "rw-p"));
    let (_patched, left) = patch(&client.object(), c"now_target", &HOOK);
    assert!(left.is_empty());
    assert_eq!((client.call(1), HOOK.hits()), (2 + HOOKED, 1));
    assert_eq!(permissions(slot), "rw-p");
}

#[test]
fn test_no_plt_call_goes_through_the_address_entry() {
    hook!(HOOK);
    let folder = Folder::new("noplt");
    let (_provider, client) = folder.pair("noplt_target", &["-fno-plt"]);
    assert_eq!(only(&client, c"noplt_target").0, ImportKind::Address);
    let (_patched, left) = patch(&client.object(), c"noplt_target", &HOOK);
    assert!(left.is_empty());
    assert_eq!((client.call(1), HOOK.hits()), (2 + HOOKED, 1));
}

#[test]
fn test_address_taken_is_the_hook() {
    hook!(HOOK);
    let folder = Folder::new("address");
    let source = "int TARGET(int); void *address(void) { return TARGET; } int call(int x) { return address() == (void *)(long)x; }";
    let (_provider, _) = folder.pair("taken_target", &[]);
    let client = Library::open(&folder.build("taker", source, &["-DTARGET=taken_target"]), libc::RTLD_LOCAL);
    let (kind, slot) = only(&client, c"taken_target");
    assert_eq!(kind, ImportKind::Address);
    let (mut patched, _) = patch(&client.object(), c"taken_target", &HOOK);
    assert_eq!(slot_value(slot), HOOK.address());
    // SAFETY: a function without arguments that returns a pointer.
    let address: extern "C" fn() -> usize =
        unsafe { std::mem::transmute(std::ptr::with_exposed_provenance::<()>(client.address(c"address"))) };
    assert_eq!(address(), HOOK.address());
    patched.undo().expect("writable");
    assert_ne!(address(), HOOK.address());
}

#[test]
fn test_versions_client_of_the_old_one_reaches_the_old_one() {
    hook!(OLD);
    hook!(NEW);
    let folder = Folder::new("versions");
    let script = folder.0.join("map");
    std::fs::write(&script, "V1 { global: versioned; local: *; }; V2 { global: versioned; } V1;").expect("writable");
    let source = "int old(int x) { return x + 1; } int new(int x) { return x + 2; }
        __asm__(\".symver old, versioned@V1\"); __asm__(\".symver new, versioned@@V2\");";
    let provider = folder.build("versions", source, &[&format!("-Wl,--version-script={}", script.display())]);
    let provider_name = provider.to_str().expect("UTF-8");
    let old =
        "__asm__(\".symver versioned, versioned@V1\"); int versioned(int); int call(int x) { return versioned(x); }";
    let old = folder.build("old", old, &[provider_name]);
    let new = folder.build("new", CLIENT, &["-DTARGET=versioned", provider_name]);
    let _provider = Library::open(&provider, libc::RTLD_GLOBAL);
    let (old, new) = (Library::open(&old, 0), Library::open(&new, 0));
    let mut versions = Vec::new();
    for client in [&old, &new] {
        find(&client.object(), c"versioned", |i| versions.push(i.version.expect("a version").to_owned()));
    }
    assert_eq!(versions, [c"V1".to_owned(), c"V2".to_owned()]);
    let (_old_patch, _new_patch) = (patch(&old.object(), c"versioned", &OLD), patch(&new.object(), c"versioned", &NEW));
    assert_eq!((old.call(0), new.call(0)), (1 + HOOKED, 2 + HOOKED));
    assert_eq!((OLD.hits(), NEW.hits()), (1, 1));
}

#[test]
fn test_ifunc_original_is_what_the_resolver_chose() {
    hook!(LAZY);
    hook!(NOW);
    let folder = Folder::new("ifunc");
    let source = "static int chosen(int x) { return x + 7; } static void *choose(void) { return chosen; }
        int ifunc_target(int) __attribute__((ifunc(\"choose\")));";
    let _provider = Library::open(&folder.build("ifunc", source, &[]), libc::RTLD_GLOBAL);
    let define = "-DTARGET=ifunc_target";
    let lazy = Library::open(&folder.build("lazy", CLIENT, &[define, "-Wl,-z,lazy"]), 0);
    let now = Library::open(&folder.build("now", CLIENT, &[define, "-Wl,-z,now"]), 0);
    let (_lazy_patch, left) = patch(&lazy.object(), c"ifunc_target", &LAZY);
    assert!(left.is_empty());
    let (_now_patch, left) = patch(&now.object(), c"ifunc_target", &NOW);
    assert!(left.is_empty());
    assert_eq!((lazy.call(0), now.call(0)), (7 + HOOKED, 7 + HOOKED));
    assert_eq!((lazy.call(0), now.call(0)), (7 + HOOKED, 7 + HOOKED));
    assert_eq!((LAZY.hits(), NOW.hits()), (2, 2));
}

#[test]
fn test_old_hash_alone_and_no_tables_are_read() {
    hook!(HOOK);
    let folder = Folder::new("sysv");
    let (_provider, client) = folder.pair("sysv_target", &["-Wl,--hash-style=sysv"]);
    let (_patched, left) = patch(&client.object(), c"sysv_target", &HOOK);
    assert!(left.is_empty());
    assert_eq!(client.call(1), 2 + HOOKED);
    let bare = folder.build("bare", "int call(int x) { return x; }", &["-nostdlib"]);
    let bare = Library::open(&bare, 0);
    let object = bare.object();
    assert!(object.hold().expect("loaded").imports().expect("readable").is_empty());
}

#[test]
fn test_late_resolver_is_seen_and_repaired() {
    hook!(HOOK);
    let folder = Folder::new("late");
    let (provider, client) = folder.pair("late_target", &["-Wl,-z,lazy"]);
    let (_, slot) = only(&client, c"late_target");
    let (patched, _) = patch(&client.object(), c"late_target", &HOOK);
    set_slot(slot, provider.address(c"late_target")); // what a thread inside the resolver does when it goes on
    assert!(!patched.is_in_place());
    assert_eq!(patched.missing().expect("memory")[0].symbol.as_c_str(), c"late_target");
    assert_eq!(patched.reapply().expect("writable"), 1);
    assert!(patched.is_in_place());
    assert_eq!(patched.reapply().expect("writable"), 0);
    assert_eq!(client.call(1), 2 + HOOKED);
}

#[test]
fn test_somebody_elses_function_stays() {
    hook!(THEIRS);
    hook!(OURS);
    let folder = Folder::new("foreign");
    let (provider, client) = folder.pair("foreign_target", &["-Wl,-z,lazy"]);
    let (_, slot) = only(&client, c"foreign_target");
    THEIRS.original.store(provider.address(c"foreign_target"), std::sync::atomic::Ordering::Relaxed);
    set_slot(slot, THEIRS.address());
    let (patched, left) = patch(&client.object(), c"foreign_target", &OURS);
    assert_eq!(left, [LeftAlone::Foreign(THEIRS.address())]);
    assert!(patched.entries().is_empty());
    // On top of ours: it is reported, and neither reapply nor undo takes it away.
    set_slot(slot, provider.address(c"foreign_target"));
    let (mut patched, left) = patch(&client.object(), c"foreign_target", &OURS);
    assert!(left.is_empty());
    let (_, again) = patch(&client.object(), c"foreign_target", &OURS);
    assert_eq!(again, [LeftAlone::Already]);
    set_slot(slot, THEIRS.address());
    assert_eq!((patched.missing().expect("memory").len(), patched.reapply().expect("writable")), (1, 0));
    let undone = patched.undo().expect("writable");
    assert_eq!((undone.restored_count, undone.foreign.as_slice()), (0, &[c"foreign_target".to_owned()][..]));
    assert_eq!((client.call(1), OURS.hits(), THEIRS.hits()), (2 + HOOKED, 0, 1));
}

#[test]
fn test_own_definitions_and_missing_functions_stay() {
    hook!(HOOK);
    let folder = Folder::new("own");
    let own = "int own_target(int x) { return x; } int call(int x) { return own_target(x); }";
    let own = Library::open(&folder.build("own", own, &["-fno-inline", "-fsemantic-interposition"]), libc::RTLD_GLOBAL);
    let (_patched, left) = patch(&own.object(), c"own_target", &HOOK);
    assert_eq!(left, [LeftAlone::DefinedHere]);
    let weak = "int missing_target(int) __attribute__((weak)); int call(int x) { return missing_target ? missing_target(x) : -1; }";
    let weak = Library::open(&folder.build("weak", weak, &[]), 0);
    let (objects, mut found) = (objects().expect("memory"), Vec::new());
    let mut originals = Originals::new(&objects);
    find(&weak.object(), c"missing_target", |i| found.push(originals.find(i.symbol, i.version).expect("memory")));
    assert!(!found.is_empty() && found.iter().all(Option::is_none));
    assert_eq!(weak.call(0), -1);
}

#[test]
fn test_protection_that_cannot_change_is_an_error_and_nothing_is_replaced() {
    hook!(HOOK);
    let folder = Folder::new("sealed");
    let (provider, client) = folder.pair("sealed_target", &["-Wl,-z,now,-z,relro"]);
    let (_, slot) = only(&client, c"sealed_target");
    let page = client.object().relro();
    // SAFETY: mseal of a mapped page; Linux 6.10. Elsewhere nothing can be made to refuse.
    if unsafe { libc::syscall(462, page.start, page.len(), 0) } != 0 {
        return;
    }
    let (objects, object) = (objects().expect("memory"), client.object());
    let held = object.hold().expect("loaded");
    let imports = held.imports().expect("readable");
    let import = imports.iter().find(|i| i.symbol == c"sealed_target").expect("imported");
    let original = Originals::new(&objects).find(import.symbol, import.version).expect("memory").expect("provided");
    let mut edit = held.edit();
    edit.replace(import, original, HOOK.address()).expect("replaceable");
    let error = edit.apply().expect_err("sealed");
    assert!(
        matches!(&error, Error::Protection { source, .. } if source.raw_os_error() == Some(libc::EPERM)),
        "{error}"
    );
    assert!(error.to_string().contains("mprotect"));
    assert_eq!(slot_value(slot), provider.address(c"sealed_target"));
    drop(imports);
    drop(held);
    std::mem::forget(client); // a sealed page cannot be unmapped
}
