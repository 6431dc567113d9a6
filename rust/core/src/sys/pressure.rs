//! Whether the system is short of memory: pressure stall information (PSI) of Linux, or what a control group counts. There is none on
//! other systems.
//!
//! Of this process's control group if it can be had (version 2), else of the whole system. A trigger is a file that the
//! kernel marks once tasks were held up by memory for 150 ms in a second; without privileges it takes windows of two
//! seconds, and none before Linux 6.5. Where triggers are refused the file is read instead, and without PSI the group's counts of how
//! often it came to its limits. Nothing here allocates: it is for when there is no memory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Where control groups of version 2 are mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// What triggers ask for, µs of a window in µs; the second is for those without privileges.
const TRIGGERS: [&[u8]; 2] = [b"some 150000 1000000\0", b"some 300000 2000000\0"];
/// Held up for so large a part of the time, where the file is read: as the triggers say.
const PART: (u64, u64) = (15, 100);
/// Time between two looks of which the second says something about it, ns.
const WINDOW_NS: u64 = 1_000_000_000;
/// A longer path is not looked at: std would allocate.
const PATH_BYTES: usize = 380;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The kernel marks the file.
    Trigger,
    /// Its `total` says for how many µs somebody was held up.
    Total,
    /// Its counts say how often the group came to its limits.
    Events,
}

/// Something that tells of pressure.
pub struct Pressure {
    file: File,
    /// By which the file is told from another one with its number: programs close what they do not know.
    identity: (u64, u64),
    kind: Kind,
    is_of_group: bool,
    seen: u64,
    seen_ns: u64,
}

/// A path below a root, on the stack.
struct PathText {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl PathText {
    /// `None`: it is too long.
    fn of(parts: &[&str]) -> Option<Self> {
        let mut path = Self { bytes: [0; PATH_BYTES], len: 0 };
        for part in parts {
            let end = path.len + part.len();
            path.bytes.get_mut(path.len..end)?.copy_from_slice(part.as_bytes());
            path.len = end;
        }
        Some(path)
    }

    fn get(&self) -> &Path {
        Path::new(std::str::from_utf8(&self.bytes[..self.len]).unwrap_or(""))
    }
}

impl Pressure {
    /// What there is for this process. `root` is where /proc and the groups are looked for, with a slash at its end; `triggers`:
    /// whether those may be tried.
    pub fn open(root: &str, triggers: bool) -> Option<Self> {
        let mut text = [0; 4096];
        let group = read(PathText::of(&[root, "proc/self/cgroup"])?.get(), &mut text)
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")))
            .map(|group| group.trim_end_matches('/'));
        let in_group = |name| {
            let group = group?;
            MOUNTS.iter().find_map(|mount| {
                let path = PathText::of(&[root, mount, group, "/", name])?;
                path.get().exists().then_some(path)
            })
        };
        let stall = in_group("memory.pressure").map(|path| (path, true));
        let stall = stall.or_else(|| Some((PathText::of(&[root, "proc/pressure/memory"])?, false)));
        stall
            .and_then(|(path, is_of_group)| {
                let trigger = triggers.then(|| Self::trigger(path.get(), is_of_group)).flatten();
                trigger.or_else(|| Self::made(File::open(path.get()).ok()?, Kind::Total, is_of_group))
            })
            .or_else(|| Self::made(File::open(in_group("memory.events")?.get()).ok()?, Kind::Events, true))
    }

    fn trigger(path: &Path, is_of_group: bool) -> Option<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        TRIGGERS.iter().find_map(|trigger| {
            let mut file = options.open(path).ok()?;
            file.write_all(trigger).ok()?;
            Self::made(file, Kind::Trigger, is_of_group)
        })
    }

    /// `None`: there is nothing to read.
    fn made(file: File, kind: Kind, is_of_group: bool) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let identity = (metadata.dev(), metadata.ino());
        let mut made = Self { file, identity, kind, is_of_group, seen: 0, seen_ns: 0 };
        if kind != Kind::Trigger {
            made.seen = made.count()?;
        }
        Some(made)
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match (self.kind, self.is_of_group) {
            (Kind::Trigger, true) => "a trigger of the control group",
            (Kind::Trigger, false) => "a trigger of the system",
            (Kind::Total, true) => "the control group's pressure, read",
            (Kind::Total, false) => "the system's pressure, read",
            (Kind::Events, _) => "the control group's counts, read",
        }
    }

    /// Whether pressure has come since the last look, as of `now_ns`. One or two system calls. `None`: there is nothing any more that tells.
    pub fn look(&mut self, now_ns: u64) -> Option<bool> {
        if !self.is_there() {
            return None;
        }
        if self.kind == Kind::Trigger {
            let mut entry = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
            // SAFETY: one entry, which lives through the call.
            let found = unsafe { libc::poll(&raw mut entry, 1, 0) };
            return (found <= 0 || entry.revents & (libc::POLLERR | libc::POLLNVAL) == 0)
                .then_some(entry.revents & libc::POLLPRI != 0);
        }
        let waits = self.kind == Kind::Total && now_ns.saturating_sub(self.seen_ns) < WINDOW_NS;
        if waits {
            return Some(false);
        }
        let count = self.count()?;
        let more = count.saturating_sub(self.seen);
        let elapsed_us = now_ns.saturating_sub(self.seen_ns) / 1000;
        let is_first = self.seen_ns == 0;
        (self.seen, self.seen_ns) = (count, now_ns);
        Some(match self.kind {
            Kind::Total => !is_first && more * PART.1 >= elapsed_us * PART.0,
            _ => more != 0,
        })
    }

    /// Whether its number is still that of its file: otherwise it is not ours to close.
    fn is_there(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    /// Ends it; the number stays open if it is another file's by now.
    pub fn close(self) {
        if !self.is_there() {
            std::mem::forget(self.file);
        }
    }

    /// What the file counts.
    fn count(&self) -> Option<u64> {
        let mut text = [0; 1024];
        let len = self.file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        if self.kind == Kind::Total {
            let some = text.lines().find(|line| line.starts_with("some "))?;
            return some.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok();
        }
        let counts = text.lines().filter_map(|line| line.split_once(' '));
        let limits = counts.filter(|(name, _)| matches!(*name, "high" | "max"));
        Some(limits.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
    }
}

/// The beginning of a file.
fn read<'a>(path: &Path, text: &'a mut [u8]) -> Option<&'a str> {
    let len = File::open(path).ok()?.read_at(text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use std::fs;

    const SECOND_NS: u64 = 1_000_000_000;

    /// A tree of files below a fresh folder, and its path with a slash.
    fn tree(name: &str, files: &[(&str, &str)]) -> String {
        let root = std::env::temp_dir().join(format!("gort-pressure-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        }
        format!("{}/", root.display())
    }

    fn stall(total_us: u64) -> String {
        format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={total_us}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
        )
    }

    #[test]
    fn a_trigger_is_asked_for_in_the_group_first() {
        let files = [
            ("proc/self/cgroup", "4:memory:/x\n0::/a/b\n"),
            ("sys/fs/cgroup/unified/a/b/memory.pressure", ""),
            ("proc/pressure/memory", ""),
        ];
        let root = tree("group", &files);
        let mut pressure = Pressure::open(&root, true).expect("a trigger");
        assert_eq!(pressure.name(), "a trigger of the control group");
        let text = |file| fs::read(format!("{root}{file}")).expect("there");
        assert_eq!(text("sys/fs/cgroup/unified/a/b/memory.pressure"), TRIGGERS[0]);
        assert!(text("proc/pressure/memory").is_empty());
        assert_eq!(pressure.look(SECOND_NS), Some(false));
        pressure.close();
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn without_a_group_it_is_the_systems() {
        let root = tree("system", &[("proc/self/cgroup", "0::/\n"), ("proc/pressure/memory", &stall(5))]);
        assert_eq!(Pressure::open(&root, false).expect("a file").name(), "the system's pressure, read");
        assert_eq!(Pressure::open(&root, true).expect("a trigger").name(), "a trigger of the system");
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn a_total_tells_by_its_share_of_the_time() {
        let root = tree("total", &[("proc/pressure/memory", &stall(1_000_000))]);
        let write = |total_us| fs::write(format!("{root}proc/pressure/memory"), stall(total_us)).expect("written");
        let mut pressure = Pressure::open(&root, false).expect("a file");
        assert_eq!(pressure.look(10 * SECOND_NS), Some(false), "the first look has nothing to compare with");
        write(1_149_000);
        assert_eq!(pressure.look(10 * SECOND_NS + SECOND_NS / 2), Some(false), "too early");
        assert_eq!(pressure.look(11 * SECOND_NS), Some(false), "149 ms in a second");
        write(1_299_000);
        assert_eq!(pressure.look(12 * SECOND_NS), Some(true), "150 ms in a second");
        assert_eq!(pressure.look(13 * SECOND_NS), Some(false), "and none since");
        write(1_500_000);
        assert_eq!(pressure.look(23 * SECOND_NS), Some(false), "201 ms in ten seconds");
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn without_stalls_a_group_tells_by_its_limits() {
        let events = "low 0\nhigh 3\nmax 1\noom 0\noom_kill 0\n";
        let root = tree("events", &[("proc/self/cgroup", "0::/g\n"), ("sys/fs/cgroup/g/memory.events", events)]);
        let mut pressure = Pressure::open(&root, true).expect("a file");
        assert_eq!(pressure.name(), "the control group's counts, read");
        assert_eq!(pressure.look(1), Some(false));
        fs::write(format!("{root}sys/fs/cgroup/g/memory.events"), events.replace("high 3", "high 4")).expect("written");
        assert_eq!(pressure.look(2), Some(true));
        assert_eq!(pressure.look(3), Some(false));
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn where_there_is_nothing_there_is_none() {
        let root = tree("nothing", &[("proc/self/cgroup", "0::/\n")]);
        assert!(Pressure::open(&root, true).is_none());
        assert!(Pressure::open("/nowhere/", true).is_none());
        assert!(Pressure::open(&"x/".repeat(300), true).is_none(), "too long a path is not looked at");
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn a_number_that_is_anothers_by_now_is_left_alone() {
        let root = tree("closed", &[("proc/pressure/memory", &stall(1))]);
        let mut pressure = Pressure::open(&root, false).expect("a file");
        let other = File::open("/dev/null").expect("there");
        // SAFETY: as a program does that closes all numbers and opens others.
        assert!(unsafe { libc::dup2(other.as_raw_fd(), pressure.file.as_raw_fd()) } >= 0);
        let number = pressure.file.as_raw_fd();
        assert_eq!(pressure.look(5 * SECOND_NS), None);
        pressure.close();
        // SAFETY: a number that is open.
        assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "it was closed");
        // SAFETY: this test's own.
        unsafe { libc::close(number) };
        let _ = fs::remove_dir_all(root);
    }
}
