//! Putting the hooks in place: at the runtime's start in all known objects, later in those that were loaded since.
//!
//! Memory may be refused at any point: what is placed by then stays so, and the next look goes on from there.

use super::elf::{self, LeftAlone, Loads, Object, Originals, Patched};
use super::hooks::{HOOKS, Hook, Subject};
use super::objects::{self, Kind};
use super::{blame, caller, descriptors, fork, keys, signals};
use crate::primitive::tries::{try_list, try_path, try_push, try_text};
use crate::sched::Runtime;
use libc::{c_char, c_void};
use std::ffi::CStr;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Why a name is as it was in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// See `objects::allows`.
    MayNotPark,
    /// Nothing in the global scope has it.
    NoOriginal,
    /// Hooks call one original each, and have another one.
    OtherVersion,
    /// The entry does not look as it should.
    Alone(LeftAlone),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MayNotPark => f.write_str("calls of this object may not park"),
            Self::NoOriginal => f.write_str("its original was not found"),
            Self::OtherVersion => f.write_str("another version of it is in use"),
            Self::Alone(why) => write!(f, "{why:?}"),
        }
    }
}

/// What became of one object.
pub struct Placed {
    /// Its path.
    pub path: PathBuf,
    /// See [`Kind`].
    pub kind: Kind,
    /// What is replaced; `None` where nothing is.
    pub patched: Option<Patched>,
    /// Names that are as they were, and why.
    pub left: Vec<(&'static CStr, Left)>,
    /// The object could not be changed at all.
    pub error: Option<elf::Error>,
    /// How often a call from an unknown object was found to last (`blame`).
    pub lasting: u64,
    /// Its code, if the calls it makes are its own.
    code: Vec<Range<usize>>,
    base: usize,
    /// It is to be looked at again: more may be known of it.
    is_stale: bool,
}

impl Placed {
    fn is_of(&self, object: &Object) -> bool {
        self.base == object.base && self.path == object.path
    }
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
/// Memory was refused to that scan: the next look goes on with it.
static IS_PARTIAL: AtomicBool = AtomicBool::new(false);

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
/// identity is answered. No goroutine runs yet. `None`: memory is refused, and it is to be called again, with the same runtime.
pub fn install(rt: &'static Runtime, interpreter: usize, parking: bool) -> Option<Installed> {
    super::serve(rt);
    crate::context::set_filter(super::threads::before_exit);
    let _ = rt.at_end.set(super::at_end); // a second call would set the same
    descriptors::note_process();
    descriptors::make_room();
    let watched = fork::watch(); // or hooks would park in a forked child that has no scheduler
    let mut guard = lock();
    let boundary = guard.get_or_insert(Boundary {
        interpreter,
        parking,
        added: Vec::new(),
        loads: elf::loads(),
        placed: Vec::new(),
    });
    boundary.scan()?;
    let identity = boundary.is_in_interpreter(c"pthread_self");
    let parking = boundary.parking && watched && identity && boundary.is_in_interpreter(c"sigaction");
    if parking {
        let _ = rt.on_lasting_call.set(blame::lasting_call);
        let known = || boundary.placed.iter().filter_map(|placed| placed.patched.as_ref());
        // SAFETY: `scan` found the originals of all hooks that are in place, `sigaction` among them.
        unsafe { signals::adopt_handlers(|address| known().any(|patched| patched.object().has_code(address))) };
    }
    caller::allow_parking(parking);
    Some(Installed { identity, parking })
}

/// How many objects had been loaded when they were looked at last: at the start and at the first `dlsym` after each was
/// loaded, if the interpreter's calls of that are seen.
pub fn scanned_loads() -> Option<u64> {
    let is_seen = super::hooks::original::dlsym::ADDRESS.load(Ordering::Relaxed) != 0; // set before any goroutine runs
    is_seen.then(|| SCANNED_LOADS.load(Ordering::Relaxed))
}

/// Looks at what was loaded since the last look, as far as there is memory for it.
pub fn rescan() {
    let _ = lock().as_mut().map(Boundary::scan); // the next look goes on
}

/// Opts objects in whose file name starts with `name`, those loaded later too. Returns how many are loaded. `None`: memory is
/// refused; some may be opted in by now, and the others are at the next look.
pub fn add(name: &str) -> Option<usize> {
    let mut guard = lock();
    let Some(boundary) = guard.as_mut() else { return Some(0) };
    if !boundary.added.iter().any(|known| known == name) {
        try_push(&mut boundary.added, try_text(name)?)?;
    }
    boundary.placed.iter_mut().for_each(|placed| placed.is_stale |= placed.kind == Kind::Unknown);
    boundary.scan_all()?;
    Some(boundary.placed.iter().filter(|placed| placed.kind == Kind::Added).count())
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

/// Calls `see` with every object and what was done to it. Replaces again what a late resolver put back. `None`: memory is refused,
/// and some were not seen.
pub fn each_object(mut see: impl FnMut(&Placed)) -> Option<()> {
    let mut guard = lock();
    let Some(boundary) = guard.as_mut() else { return Some(()) };
    boundary.scan()?;
    let all = elf::objects().ok()?;
    for placed in &boundary.placed {
        if let Some(Err(elf::Error::NoMemory)) = placed.patched.as_ref().map(|patched| patched.reapply_among(&all)) {
            return None;
        }
        see(placed);
    }
    Some(())
}

/// libcrypto frees a thread's part when the thread ends, by a key whose destructor is older than the hooks. There is room.
fn note_thread_stop(object: &Object, patched: &mut Patched) {
    let stop = object.hold().ok().and_then(|held| held.symbol(c"OPENSSL_thread_stop"));
    if let Some(stop) = stop.filter(|stop| object.has_code(*stop))
        && patched.keep_loaded().is_ok()
    {
        keys::add_thread_stop(stop);
    }
}

/// The hook for an import's name.
fn hook_for(name: &CStr) -> Option<&'static Hook> {
    HOOKS.iter().find(|hook| hook.name == name)
}

impl Boundary {
    /// Whether the interpreter's calls of `name` are answered.
    fn is_in_interpreter(&self, name: &CStr) -> bool {
        let has = |patched: &Patched| patched.entries().iter().any(|entry| entry.symbol.as_c_str() == name);
        let mut interpreters = self.placed.iter().filter(|placed| placed.kind == Kind::Interpreter);
        interpreters.any(|placed| placed.patched.as_ref().is_some_and(has))
    }

    /// Looks at what is new, if anything was loaded or unloaded since the last look. `None`: memory is refused.
    fn scan(&mut self) -> Option<()> {
        let is_due = elf::loads() != self.loads || self.placed.is_empty() || IS_PARTIAL.load(Ordering::Relaxed);
        if is_due { self.scan_all() } else { Some(()) }
    }

    fn scan_all(&mut self) -> Option<()> {
        let loads = elf::loads();
        self.loads = loads;
        SCANNED_LOADS.store(loads.added, Ordering::Relaxed); // a hint
        IS_PARTIAL.store(true, Ordering::Relaxed); // a hint, too
        let all = elf::objects().ok()?;
        let mut originals = Originals::new(&all);
        self.placed.retain(|placed| all.iter().any(|object| placed.is_of(object)));
        for object in &all {
            let at = self.placed.iter().position(|placed| placed.is_of(object));
            if at.is_some_and(|at| !self.placed[at].is_stale) {
                continue;
            }
            self.placed.try_reserve(1).ok()?; // before anything of it is replaced
            let mut placed = self.place(object, &mut originals)?;
            match at {
                Some(at) => {
                    placed.lasting = if placed.kind == Kind::Unknown { self.placed[at].lasting } else { 0 };
                    self.placed[at] = placed;
                }
                None => self.placed.push(placed),
            }
        }
        IS_PARTIAL.store(false, Ordering::Relaxed);
        Some(())
    }

    /// `None`: memory is refused, and nothing of it is replaced.
    fn place(&self, object: &Object, originals: &mut Originals<'_>) -> Option<Placed> {
        let kind = objects::kind_of(object, self.interpreter, &self.added);
        let code = if objects::calls_for_others(object) { Vec::new() } else { try_list(object.code())? };
        let (path, left) = (try_path(&object.path)?, Vec::new());
        let (base, is_stale) = (object.base, false);
        let mut placed = Placed { path, kind, patched: None, left, error: None, lasting: 0, code, base, is_stale };
        if kind == Kind::OpenSsl {
            keys::make_room_for_thread_stop()?;
        }
        if kind != Kind::Unknown {
            match self.patch(object, kind, originals, &mut placed.left) {
                Ok(mut patched) => {
                    if kind == Kind::OpenSsl {
                        note_thread_stop(object, &mut patched);
                    }
                    placed.patched = Some(patched);
                }
                Err(elf::Error::NoMemory) => return None,
                Err(error) => placed.error = Some(error),
            }
        }
        Some(placed)
    }

    fn patch(
        &self,
        object: &Object,
        kind: Kind,
        originals: &mut Originals<'_>,
        left: &mut Vec<(&'static CStr, Left)>,
    ) -> Result<Patched, elf::Error> {
        let held = object.hold()?;
        let mut edit = held.edit();
        for import in held.imports()? {
            let Some(hook) = hook_for(import.symbol) else { continue };
            let mut leave = |why| try_push(left, (hook.name, why)).ok_or(elf::Error::NoMemory);
            if !objects::allows(kind, object, hook, self.parking) {
                leave(Left::MayNotPark)?;
                continue;
            }
            let mut original = originals.find(import.symbol, import.version)?;
            if hook.subject == Subject::Locals {
                original = original.or_else(|| held.original(import.symbol)); // libstdc++'s, which is not for everybody
            }
            let Some(original) = original else {
                leave(Left::NoOriginal)?;
                continue;
            };
            // Hooks call one original each. Versions of these functions differ in name only, as far as glibc goes.
            let known = hook.original.load(Ordering::Relaxed);
            if known == 0 {
                hook.original.store(original.address, Ordering::Relaxed); // before its hook is in place anywhere
            } else if known != original.address {
                leave(Left::OtherVersion)?;
                continue;
            }
            match edit.replace(&import, original, hook.function as usize) {
                Ok(()) | Err(LeftAlone::Already) => {}
                Err(LeftAlone::NoMemory) => return Err(elf::Error::NoMemory),
                Err(why) => leave(Left::Alone(why))?,
            }
        }
        edit.apply()
    }
}

/// `dlsym`, which follows every dlopen of an extension module before any of its code runs: what came with it is looked at.
/// dlopen itself must not be replaced: it searches by who calls it.
pub(super) unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    if elf::loads().added != SCANNED_LOADS.load(Ordering::Relaxed) || IS_PARTIAL.load(Ordering::Relaxed) {
        let before = crate::sys::errno::get();
        rescan();
        crate::sys::errno::set(before);
    }
    // SAFETY: as called.
    unsafe { super::hooks::original::dlsym::call(handle, name) }
}
