//! A program at a fixed address (Debian 12's python3.11 is one): where it takes a function's address, its PLT entry stands
//! for the function in every lookup. A hook whose original is that entry would call itself for ever.

use crate::made::Folder;
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "
#include <dlfcn.h>
#include <stdio.h>
int getppid(void);
int main(int count, char **arguments) {
    int (*volatile taken)(void) = getppid;
    void *probe = dlopen(arguments[1], RTLD_NOW);
    if (!probe) { puts(dlerror()); return 2; }
    int (*replace)(void) = (int (*)(void))dlsym(probe, \"replace\");
    int before = getppid(), replaced = replace();
    printf(\"%d %d %d\\n\", replaced, getppid() - before, taken() - before);
    return 0;
}";

/// Builds the library `probe` is; fresh already when all tests are run.
fn probe() -> PathBuf {
    let me = std::env::current_exe().expect("a path");
    let folder = me.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--package", "gort-core", "--example", "patcher_probe"]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().expect("cargo").success());
    folder.join("examples").join("libpatcher_probe.so")
}

#[test]
fn test_program_at_a_fixed_address_hook_reaches_libc() {
    let folder = Folder::new("fixed");
    let program = folder.compile("fixed", PROGRAM, &["-O1", "-w", "-no-pie", "-fno-pic", "-ldl"]);
    let done = Command::new(program).arg(probe()).output().expect("a child");
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{}: {out}", done.status);
    assert_eq!(out.trim(), "1 1000 1000", "entries replaced, and what the hook added to a call and through an address");
}
