//! Putting the hooks in place: at the runtime's start in all known objects, later in those that were loaded since.

use super::elf::{self, LeftAlone, Loads, Object, Originals, Patched};
use super::hooks::{HOOKS, Hook, Subject};
use super::objects::{self, Kind};
use super::{blame, caller, descriptors, fork, signals};
use crate::sched::Runtime;
use libc::{c_char, c_void};
use std::collections::HashSet;
use std::ffi::CStr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What became of one object.
pub struct Placed {
    /// Its path.
    pub path: PathBuf,
    /// See [`Kind`].
    pub kind: Kind,
    /// What is replaced; `None` where nothing is.
    pub patched: Option<Patched>,
    /// Names that are as they were, and why.
    pub left: Vec<(String, String)>,
    /// The object could not be changed at all.
    pub error: Option<elf::Error>,
    /// How often a call from an unknown object was found to last (`blame`).
    pub lasting: u64,
    /// Its code, if the calls it makes are its own.
    code: Vec<Range<usize>>,
    key: (PathBuf, usize),
}

/// Where everything is. The hooks themselves never take its lock.
pub(super) struct Boundary {
    interpreter: usize,
    parking: bool,
    added: Vec<String>,
    loads: Loads,
    placed: Vec<Placed>,
}

static BOUNDARY: Mutex<Option<Boundary>> = Mutex::new(None);
/// `Loads` of the last scan, for a look without the lock.
static SCANNED_LOADS: AtomicU64 = AtomicU64::new(0);

pub(super) fn lock() -> MutexGuard<'static, Option<Boundary>> {
    BOUNDARY.lock().unwrap_or_else(|e| e.into_inner())
}

/// What was installed.
#[derive(Debug, Clone, Copy)]
pub struct Installed {
    /// Each goroutine has an identity of its own.
    pub identity: bool,
    /// Calls that block park.
    pub parking: bool,
}

/// Puts the hooks in place for `rt`. `interpreter` is the address of a function of the interpreter; without `parking` only
/// identity is answered. Called once. No goroutine runs yet.
pub fn install(rt: &'static Runtime, interpreter: usize, parking: bool) -> Installed {
    super::serve(rt);
    crate::context::set_filter(super::threads::before_exit);
    let _ = rt.at_end.set(super::at_end); // a second call would set the same
    descriptors::note_process();
    descriptors::make_room();
    let watched = fork::watch(); // or hooks would park in a forked child that has no scheduler
    let mut boundary = Boundary { interpreter, parking, added: Vec::new(), loads: elf::loads(), placed: Vec::new() };
    boundary.scan();
    let in_interpreter = |name: &CStr| {
        boundary.placed.iter().any(|p| {
            p.kind == Kind::Interpreter
                && p.patched
                    .as_ref()
                    .is_some_and(|patched| patched.entries().iter().any(|e| e.symbol.as_c_str() == name))
        })
    };
    let identity = in_interpreter(c"pthread_self");
    let parking = parking && watched && identity && in_interpreter(c"sigaction");
    if parking {
        let _ = rt.on_lasting_call.set(blame::lasting_call);
        let known: Vec<Object> = boundary
            .placed
            .iter()
            .filter(|p| p.kind != Kind::Unknown)
            .filter_map(|p| p.patched.as_ref().map(|patched| patched.object().clone()))
            .collect();
        // SAFETY: `scan` found the originals of all hooks that are in place, `sigaction` among them.
        unsafe { signals::adopt_handlers(|address| known.iter().any(|object| object.has_code(address))) };
    }
    *lock() = Some(boundary);
    caller::allow_parking(parking);
    Installed { identity, parking }
}

/// How many objects had been loaded when they were looked at last: at the start and at the first `dlsym` after each was
/// loaded, if the interpreter's calls of that are seen.
pub fn scanned_loads() -> Option<u64> {
    let is_seen = super::hooks::original::dlsym::ADDRESS.load(Ordering::Relaxed) != 0; // set before any goroutine runs
    is_seen.then(|| SCANNED_LOADS.load(Ordering::Relaxed))
}

/// Looks at what was loaded since the last look.
pub fn rescan() {
    if let Some(boundary) = lock().as_mut() {
        boundary.scan();
    }
}

/// Opts objects in whose file name starts with `name`, those loaded later too. Returns how many are loaded.
pub fn add(name: &str) -> usize {
    let mut guard = lock();
    let Some(boundary) = guard.as_mut() else { return 0 };
    boundary.added.push(name.to_owned());
    let is_unknown = |placed: &mut Placed| placed.kind == Kind::Unknown;
    let unknown: Vec<Placed> = boundary.placed.extract_if(.., is_unknown).collect();
    boundary.scan_all(); // looks at them again
    for placed in boundary.placed.iter_mut().filter(|placed| placed.kind == Kind::Unknown) {
        placed.lasting = unknown.iter().find(|before| before.key == placed.key).map_or(0, |before| before.lasting);
    }
    boundary.placed.iter().filter(|placed| placed.kind == Kind::Added).count()
}

/// A call lasts whose stack has these words: whose it is. Without waiting for the lock: its holder may wait for a dlopen.
pub(super) fn blame(words: &[usize]) {
    let Ok(mut guard) = BOUNDARY.try_lock() else { return };
    let Some(boundary) = guard.as_mut() else { return };
    for word in words {
        if let Some(placed) = boundary.placed.iter_mut().find(|p| p.code.iter().any(|code| code.contains(word))) {
            placed.lasting += u64::from(placed.kind == Kind::Unknown);
            return;
        }
    }
}

/// Calls `see` with every object and what was done to it. Replaces again what a late resolver put back.
pub fn each_object(mut see: impl FnMut(&Placed)) {
    if let Some(boundary) = lock().as_mut() {
        boundary.scan();
        for placed in &boundary.placed {
            if let Some(patched) = &placed.patched {
                let _ = patched.reapply();
            }
            see(placed);
        }
    }
}

/// libcrypto frees a thread's part when the thread ends, by a key whose destructor is older than the hooks.
fn note_thread_stop(object: &Object, patched: &mut Patched) {
    let stop = object.hold().ok().and_then(|held| held.symbol(c"OPENSSL_thread_stop"));
    if let Some(stop) = stop.filter(|stop| object.has_code(*stop))
        && patched.keep_loaded().is_ok()
    {
        super::keys::add_thread_stop(stop);
    }
}

/// The hook for an import's name.
fn hook_for(name: &CStr) -> Option<&'static Hook> {
    HOOKS.iter().find(|hook| hook.name == name)
}

impl Boundary {
    /// Looks at what is new, if anything was loaded or unloaded since the last look.
    fn scan(&mut self) {
        if elf::loads() != self.loads || self.placed.is_empty() {
            self.scan_all();
        }
    }

    fn scan_all(&mut self) {
        let loads = elf::loads();
        self.loads = loads;
        SCANNED_LOADS.store(loads.added, Ordering::Relaxed); // a hint
        let all = elf::objects();
        let mut originals = Originals::new(&all);
        let present: HashSet<(PathBuf, usize)> = all.iter().map(|o| (o.path.clone(), o.base)).collect();
        self.placed.retain(|placed| present.contains(&placed.key));
        let known: HashSet<(PathBuf, usize)> = self.placed.iter().map(|placed| placed.key.clone()).collect();
        for object in &all {
            let key = (object.path.clone(), object.base);
            if !known.contains(&key) {
                let placed = self.place(object, key, &mut originals);
                self.placed.push(placed);
            }
        }
    }

    fn place(&self, object: &Object, key: (PathBuf, usize), originals: &mut Originals<'_>) -> Placed {
        let kind = objects::kind_of(object, self.interpreter, &self.added);
        let code = if objects::calls_for_others(object) { Vec::new() } else { object.code().collect() };
        let path = object.path.clone();
        let mut placed = Placed { path, kind, patched: None, left: Vec::new(), error: None, lasting: 0, code, key };
        if kind != Kind::Unknown {
            match self.patch(object, kind, originals, &mut placed.left) {
                Ok(mut patched) => {
                    if kind == Kind::OpenSsl {
                        note_thread_stop(object, &mut patched);
                    }
                    placed.patched = Some(patched);
                }
                Err(error) => placed.error = Some(error),
            }
        }
        placed
    }

    fn patch(
        &self,
        object: &Object,
        kind: Kind,
        originals: &mut Originals<'_>,
        left: &mut Vec<(String, String)>,
    ) -> Result<Patched, elf::Error> {
        let held = object.hold()?;
        let mut edit = held.edit();
        for import in held.imports()? {
            let Some(hook) = hook_for(import.symbol) else { continue };
            let mut leave = |why: &str| left.push((hook.name.to_string_lossy().into_owned(), why.to_owned()));
            if !objects::allows(kind, object, hook, self.parking) {
                leave("calls of this object may not park");
                continue;
            }
            let mut original = originals.find(import.symbol, import.version);
            if hook.subject == Subject::Locals {
                original = original.or_else(|| held.original(import.symbol)); // libstdc++'s, which is not for everybody
            }
            let Some(original) = original else {
                leave("its original was not found");
                continue;
            };
            // Hooks call one original each. Versions of these functions differ in name only, as far as glibc goes.
            let known = hook.original.load(Ordering::Relaxed);
            if known == 0 {
                hook.original.store(original.address, Ordering::Relaxed); // before its hook is in place anywhere
            } else if known != original.address {
                leave("another version of it is in use");
                continue;
            }
            match edit.replace(&import, original, hook.function as usize) {
                Ok(()) | Err(LeftAlone::Already) => {}
                Err(why) => leave(&format!("{why:?}")),
            }
        }
        edit.apply()
    }
}

/// `dlsym`, which follows every dlopen of an extension module before any of its code runs: what came with it is looked at.
/// dlopen itself must not be replaced: it searches by who calls it.
pub(super) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    if elf::loads().added != SCANNED_LOADS.load(Ordering::Relaxed) {
        let before = crate::sys::errno::get();
        rescan();
        crate::sys::errno::set(before);
    }
    // SAFETY: as called.
    unsafe { super::hooks::original::dlsym::call(handle, name) }
}
