//! Compiles the C shim against the headers of the Python this wheel is for.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=GORT_PY_INCLUDE");
    pyo3_build_config::use_pyo3_cfgs();
    let includes: Vec<String> = match std::env::var("GORT_PY_INCLUDE") {
        Ok(dirs) => dirs.split(':').map(str::to_owned).collect(),
        Err(_) => ask_interpreter(),
    };
    let mut build = cc::Build::new();
    build
        .files([
            "shim/pystate.c",
            "shim/interrupt.c",
            "shim/collector.c",
            "shim/tools.c",
            "shim/stacks.c",
            "shim/malloc.c",
        ])
        .opt_level(3)
        .warnings(true)
        .flag_if_supported("-fvisibility=hidden");
    for dir in &includes {
        build.include(dir).include(format!("{dir}/internal"));
    }
    build.compile("gort_pystate");
}

fn ask_interpreter() -> Vec<String> {
    let config = pyo3_build_config::get();
    let python = config
        .executable()
        .map(str::to_owned)
        .or_else(|| std::env::var("PYO3_PYTHON").ok())
        .unwrap_or_else(|| "python3".to_owned());
    let script = "import sysconfig as s; p=s.get_paths(); print(p['include']); print(p['platinclude'])";
    let output = Command::new(&python).args(["-c", script]).output().expect("cannot run the Python to build for");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
