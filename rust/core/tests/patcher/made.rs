//! Objects made at test time, loading them, and hooks that count.

use gort_core::boundary::elf::{Import, LeftAlone, Object, Originals, Patched, objects};
use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls TARGET, and gives its address away.
pub(crate) const CLIENT: &str = "int TARGET(int); int call(int x) { return TARGET(x); }";
/// Has TARGET: one more.
pub(crate) const PROVIDER: &str = "int TARGET(int x) { return x + 1; }";
/// What a hook adds to the original's result.
pub(crate) const HOOKED: c_int = 100;

/// A folder that goes away with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gort-patcher-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Compiles `source` as lib`name`.so.
    pub(crate) fn build(&self, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
        self.compile(&format!("lib{name}.so"), source, &[&["-shared", "-fPIC", "-O1", "-w"], arguments].concat())
    }

    /// Compiles `source` to a file of that name.
    pub(crate) fn compile(&self, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
        let (code, out) = (self.0.join(format!("{name}.c")), self.0.join(name));
        fs::write(&code, source).expect("a writable folder");
        let named = std::env::var("CC").ok();
        let compilers = named.as_deref().map_or(vec!["cc", "gcc", "clang"], |cc| vec![cc]);
        let run = |cc: &&str| Command::new(cc).arg("-o").arg(&out).arg(&code).args(arguments).output().ok();
        let done = compilers.iter().find_map(run).expect("no C compiler: apt-get install gcc libc6-dev");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        out
    }

    /// A provider of `target` in the global scope, and a client, built with `arguments` once.
    pub(crate) fn pair_once(&self, target: &str, arguments: &[&str]) -> (Library, Library) {
        if !self.0.join("libclient.so").exists() {
            return self.pair(target, arguments);
        }
        let open = |name, flags| Library::open(&self.0.join(name), flags);
        (open("libprovider.so", libc::RTLD_GLOBAL), open("libclient.so", libc::RTLD_LOCAL))
    }

    /// A provider of `target` in the global scope, and a client built with `arguments`.
    pub(crate) fn pair(&self, target: &str, arguments: &[&str]) -> (Library, Library) {
        let define = format!("-DTARGET={target}");
        let provider = self.build("provider", PROVIDER, &[&define]);
        let client = self.build("client", CLIENT, &[&[define.as_str()], arguments].concat());
        (Library::open(&provider, libc::RTLD_GLOBAL), Library::open(&client, libc::RTLD_LOCAL))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A library opened lazily, closed at the end.
pub(crate) struct Library {
    handle: *mut c_void,
    pub(crate) path: PathBuf,
}

// SAFETY: the loader's handles belong to the process.
unsafe impl Sync for Library {}

impl Library {
    pub(crate) fn open(path: &Path, flags: c_int) -> Self {
        let name = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: a library made by the test.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | flags) };
        assert!(!handle.is_null(), "{} does not load", path.display());
        Self { handle, path: path.to_owned() }
    }

    pub(crate) fn address(&self, name: &CStr) -> usize {
        // SAFETY: a valid handle.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!address.is_null(), "no {name:?} in {}", self.path.display());
        address.expose_provenance()
    }

    /// Its `call(int)`.
    pub(crate) fn call(&self, x: c_int) -> c_int {
        call_at(self.address(c"call"), x)
    }

    /// How the patcher sees it.
    pub(crate) fn object(&self) -> Object {
        object_at(&self.path).expect("listed")
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; no code of it runs any more.
        unsafe { libc::dlclose(self.handle) };
    }
}

pub(crate) fn call_at(address: usize, x: c_int) -> c_int {
    // SAFETY: a function of this signature, by the tests' making.
    let function: extern "C" fn(c_int) -> c_int =
        unsafe { std::mem::transmute(ptr::with_exposed_provenance::<c_void>(address)) };
    function(x)
}

pub(crate) fn object_at(path: &Path) -> Option<Object> {
    objects().expect("memory").into_iter().find(|o| o.path == path)
}

/// What a slot holds.
pub(crate) fn slot_value(slot: usize) -> usize {
    // SAFETY: a slot of a loaded object.
    unsafe { AtomicUsize::from_ptr(ptr::with_exposed_provenance_mut(slot)) }.load(Ordering::Relaxed)
}

/// Writes a slot as somebody else would.
pub(crate) fn set_slot(slot: usize, value: usize) {
    // SAFETY: a slot of a loaded object, in a page that is writable.
    unsafe { AtomicUsize::from_ptr(ptr::with_exposed_provenance_mut(slot)) }.store(value, Ordering::Relaxed);
}

/// The imports of one symbol, by kind and slot.
pub(crate) fn find(object: &Object, symbol: &CStr, look: impl FnMut(&Import<'_>)) {
    let held = object.hold().expect("loaded");
    held.imports().expect("readable").iter().filter(|i| i.symbol == symbol).for_each(look);
}

/// Replaces `symbol` in one object; what stayed as it was comes second.
pub(crate) fn patch(object: &Object, symbol: &CStr, hook: &Hook) -> (Patched, Vec<LeftAlone>) {
    let objects = objects().expect("memory");
    let mut originals = Originals::new(&objects);
    let held = object.hold().expect("loaded");
    let mut edit = held.edit();
    let mut left = Vec::new();
    for import in held.imports().expect("readable").iter().filter(|i| i.symbol == symbol) {
        let original = originals.find(import.symbol, import.version).expect("memory").expect("an original");
        hook.original.store(original.address, Ordering::Release); // read by the hook
        left.extend(edit.replace(import, original, hook.address()).err());
    }
    let patched = edit.apply().expect("writable");
    assert!(patched.left.is_empty() && patched.left_writable.is_none(), "{patched:?}");
    (patched, left)
}

/// A function that stands in for `int f(int)`: counts, calls the original and adds `HOOKED`.
pub(crate) struct Hook {
    pub(crate) function: extern "C" fn(c_int) -> c_int,
    pub(crate) original: AtomicUsize,
    pub(crate) hits: AtomicUsize,
}

impl Hook {
    pub(crate) const fn new(function: extern "C" fn(c_int) -> c_int) -> Self {
        Self { function, original: AtomicUsize::new(0), hits: AtomicUsize::new(0) }
    }

    pub(crate) fn address(&self) -> usize {
        (self.function as *const ()).expose_provenance()
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, x: c_int) -> c_int {
        self.hits.fetch_add(1, Ordering::Relaxed);
        call_at(self.original.load(Ordering::Acquire), x) + HOOKED // what `patch` stored
    }
}

/// Makes a hook in a static.
#[macro_export]
macro_rules! hook {
    ($name:ident) => {
        static $name: $crate::made::Hook = {
            extern "C" fn function(x: std::ffi::c_int) -> std::ffi::c_int {
                $name.enter(x)
            }
            $crate::made::Hook::new(function)
        };
    };
}

/// The permissions /proc/self/maps has for an address, as "r--p".
pub(crate) fn permissions(address: usize) -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let number = |text| usize::from_str_radix(text, 16).expect("an address");
    let line = maps.lines().find(|line| {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split_once(' ').expect("permissions").0;
        (number(start)..number(end)).contains(&address)
    });
    line.expect("mapped").split(' ').nth(1).expect("permissions").to_owned()
}

/// Set in a run of this binary that is for one test.
pub(crate) const CHILD: &str = "GORT_TEST_CHILD";

/// Runs this binary again for the test of that name only, with these variables; it must pass there.
pub(crate) fn passes_alone(test: &str, environment: &[(&str, &OsStr)]) {
    let me = std::env::current_exe().expect("a path");
    let done = Command::new(me)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .output()
        .expect("a child");
    let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}{error}");
}
