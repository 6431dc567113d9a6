//! How many CPUs this process may use: those of its mask, or what its control group's CPU quota comes to if that is less.
//! Go's rule (runtime/cgroup_linux.go, adjustCgroupGOMAXPROCS; internal/cgroup). There are none on other systems.

use super::scheduling::Scheduling;
use crate::primitive::tries::try_text;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Memory is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct NoMemory;

/// What Go's GOMAXPROCS would be here. Reads /proc and the control groups.
///
/// # Errors
/// `NoMemory`.
pub fn usable_cpus() -> Result<usize, NoMemory> {
    Ok(adjusted(Scheduling::read().cpu_count(), quota(Path::new("/"))?))
}

/// The quota rounded up and at least 2, but no more than there are.
fn adjusted(cpus: usize, quota: Option<f64>) -> usize {
    quota.map_or(cpus, |quota| cpus.min((quota.ceil() as usize).max(2)))
}

/// The CPU quota in CPUs: the least of this process's control group and those above it. `None`: no quota, or none to be
/// found. `root` is where /proc and the groups are looked for.
///
/// # Errors
/// `NoMemory`.
pub fn quota(root: &Path) -> Result<Option<f64>, NoMemory> {
    let (groups, mounts) = (read(root, "proc/self/cgroup")?, read(root, "proc/self/mountinfo")?);
    let (Some(groups), Some(mounts)) = (groups, mounts) else { return Ok(None) };
    // 4:cpu,cpuacct:/path for version 1, which has the CPU controller if it is there at all; 0::/path for version 2.
    let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let first = lines.clone().find(|(names, _)| names.split(',').any(|name| name == "cpu"));
    let is_first = first.is_some();
    let Some((_, group)) = first.or_else(|| lines.find(|(names, _)| names.is_empty())) else { return Ok(None) };
    let Some((mounted, top)) = mounts.lines().find_map(|line| mount_of_cpu(line, is_first)) else { return Ok(None) };
    let (mounted, top) = (unescaped(mounted)?, unescaped(top)?);
    let below = group.strip_prefix(mounted.trim_end_matches('/')).unwrap_or(group);
    let top = joined(root, top.trim_start_matches('/'))?;
    let mut place = joined(&top, below.trim_start_matches('/'))?;
    let mut least: Option<f64> = None;
    loop {
        if let Some(here) = quota_at(&place, is_first)? {
            least = Some(least.map_or(here, |least| least.min(here)));
        }
        if place == top || !place.pop() {
            return Ok(least);
        }
    }
}

/// `below` in `folder`.
fn joined(folder: &Path, below: &str) -> Result<PathBuf, NoMemory> {
    let mut path = OsString::new();
    path.try_reserve_exact(folder.as_os_str().len() + 1 + below.len()).map_err(|_| NoMemory)?;
    path.push(folder);
    let mut path = PathBuf::from(path);
    path.push(below); // there is room
    Ok(path)
}

/// The text of a file in `folder`; `None`: it cannot be read.
fn read(folder: &Path, file: &str) -> Result<Option<String>, NoMemory> {
    let Ok(mut file) = File::open(joined(folder, file)?) else { return Ok(None) };
    let mut text = Vec::new();
    loop {
        let mut part = [0; 1024];
        match file.read(&mut part) {
            Ok(0) => return Ok(String::from_utf8(text).ok()),
            Ok(len) => {
                text.try_reserve(len).map_err(|_| NoMemory)?; // std's own reading ends the process
                text.extend_from_slice(&part[..len]);
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Of a line of mountinfo that mounts the CPU controller: the group that is mounted, and where.
fn mount_of_cpu(line: &str, is_first: bool) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let right = match is_first {
        true => kind.next() == Some("cgroup") && kind.next_back()?.split(',').any(|option| option == "cpu"),
        false => kind.next() == Some("cgroup2"),
    };
    let mut fields = mount.split(' ').skip(3);
    if right { Some((fields.next()?, fields.next()?)) } else { None }
}

/// Blanks and the like are written in octal there.
fn unescaped(text: &str) -> Result<String, NoMemory> {
    const ESCAPED: [(&str, char); 4] = [("\\040", ' '), ("\\011", '\t'), ("\\012", '\n'), ("\\134", '\\')];
    let mut out = try_text(text).ok_or(NoMemory)?;
    out.clear(); // what comes into it now is no longer
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let escaped = ESCAPED.iter().find_map(|&(from, to)| Some((rest.strip_prefix(from)?, to)));
        let (after, c) = escaped.unwrap_or((&rest[first.len_utf8()..], first));
        out.push(c);
        rest = after;
    }
    Ok(out)
}

/// The quota of one group, CPUs.
fn quota_at(group: &Path, is_first: bool) -> Result<Option<f64>, NoMemory> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let (quota, period) = if is_first {
        let (quota, period) = (read(group, "cpu.cfs_quota_us")?, read(group, "cpu.cfs_period_us")?);
        (quota.as_deref().and_then(number), period.as_deref().and_then(number))
    } else {
        let text = read(group, "cpu.max")?.unwrap_or_default();
        let (quota, period) = text.trim().split_once(' ').unwrap_or_default();
        (number(quota), number(period)) // "max": no quota
    };
    let (Some(quota), Some(period)) = (quota, period) else { return Ok(None) };
    Ok((quota > 0.0 && period > 0.0).then_some(quota / period))
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use std::fs;

    /// A tree of files below a fresh folder.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("gort-cgroup-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        }
        root
    }

    const MOUNT2: &str =
        "24 18 0:22 / /proc rw - proc proc rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2_takes_the_least_of_the_group_and_those_above() {
        let root = tree(
            "two",
            &[
                ("proc/self/cgroup", "0::/a/b/c\n"),
                ("proc/self/mountinfo", MOUNT2),
                ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n"),
            ],
        );
        assert_eq!(quota(&root), Ok(Some(1.5)));
        assert_eq!(adjusted(8, quota(&root).expect("memory")), 2);
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn version_1_reads_the_group_of_the_cpu_controller() {
        let root = tree(
            "one",
            &[
                ("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/box/one\n0::/unified\n"),
                (
                    "proc/self/mountinfo",
                    "31 30 0:27 /box /sys/fs/cgroup/cpu\\040acct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
                ),
                ("sys/fs/cgroup/cpu acct/one/cpu.cfs_quota_us", "250000\n"),
                ("sys/fs/cgroup/cpu acct/one/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu acct/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu acct/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(quota(&root), Ok(Some(2.5)));
        assert_eq!(adjusted(8, quota(&root).expect("memory")), 3);
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn no_quota_leaves_the_cpus_of_the_mask() {
        let none = tree("none", &[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", MOUNT2)]);
        assert_eq!(quota(&none), Ok(None));
        assert_eq!(quota(Path::new("/nowhere")), Ok(None));
        assert_eq!(adjusted(6, None), 6);
        assert_eq!(adjusted(1, Some(0.5)), 1);
        assert_eq!(adjusted(4, Some(0.1)), 2);
        assert!(usable_cpus().expect("memory") >= 1);
        let _ = fs::remove_dir_all(none);
    }
}
