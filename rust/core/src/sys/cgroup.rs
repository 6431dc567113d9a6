//! How many CPUs this process may use: those of its mask, or what its control group's CPU quota comes to if that is less.
//! Go's rule (runtime/cgroup_linux.go, adjustCgroupGOMAXPROCS; internal/cgroup). There are none on other systems.

use super::scheduling::Scheduling;
use std::fs;
use std::path::Path;

/// What Go's GOMAXPROCS would be here. Reads /proc and the control groups.
pub fn usable_cpus() -> usize {
    adjusted(Scheduling::read().cpu_count(), quota(Path::new("/")))
}

/// The quota rounded up and at least 2, but no more than there are.
fn adjusted(cpus: usize, quota: Option<f64>) -> usize {
    quota.map_or(cpus, |quota| cpus.min((quota.ceil() as usize).max(2)))
}

/// The CPU quota in CPUs: the least of this process's control group and those above it. `None`: no quota, or none to be
/// found. `root` is where /proc and the groups are looked for.
pub fn quota(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    // 4:cpu,cpuacct:/path for version 1, which has the CPU controller if it is there at all; 0::/path for version 2.
    let lines = || groups.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let first = lines().find(|[names, _]: &[&str; 2]| names.split(',').any(|name| name == "cpu"));
    let is_first = first.is_some();
    let [_, group] = first.or_else(|| lines().find(|[names, _]: &[&str; 2]| names.is_empty()))?;
    let (mounted, top) = mounts.lines().find_map(|line| mount_of_cpu(line, is_first))?;
    let below = group.strip_prefix(mounted.trim_end_matches('/')).unwrap_or(group);
    let top = root.join(top.trim_start_matches('/'));
    let mut place = top.join(below.trim_start_matches('/'));
    let mut least: Option<f64> = None;
    loop {
        if let Some(here) = quota_at(&place, is_first) {
            least = Some(least.map_or(here, |least| least.min(here)));
        }
        if place == top || !place.pop() {
            return least;
        }
    }
}

/// Of a line of mountinfo that mounts the CPU controller: the group that is mounted, and where.
fn mount_of_cpu(line: &str, is_first: bool) -> Option<(String, String)> {
    let (mount, kind) = line.split_once(" - ")?;
    let kind: Vec<&str> = kind.split(' ').collect();
    let right = match is_first {
        true => kind.first() == Some(&"cgroup") && kind.last()?.split(',').any(|option| option == "cpu"),
        false => kind.first() == Some(&"cgroup2"),
    };
    let fields: Vec<&str> = mount.split(' ').collect();
    right.then_some((unescaped(fields.get(3)?), unescaped(fields.get(4)?)))
}

/// Blanks and the like are written in octal there.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The quota of one group, CPUs.
fn quota_at(group: &Path, is_first: bool) -> Option<f64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<f64>().ok();
    let (quota, period) = if is_first {
        (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
    } else {
        let text = fs::read_to_string(group.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        (quota.parse().ok()?, period.parse().ok()?) // "max": no quota
    };
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use std::path::PathBuf;

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
        assert_eq!(quota(&root), Some(1.5));
        assert_eq!(adjusted(8, quota(&root)), 2);
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
        assert_eq!(quota(&root), Some(2.5));
        assert_eq!(adjusted(8, quota(&root)), 3);
        let _ = fs::remove_dir_all(root);
    }

    #[test]
    fn no_quota_leaves_the_cpus_of_the_mask() {
        let none = tree("none", &[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", MOUNT2)]);
        assert_eq!(quota(&none), None);
        assert_eq!(quota(Path::new("/nowhere")), None);
        assert_eq!(adjusted(6, None), 6);
        assert_eq!(adjusted(1, Some(0.5)), 1);
        assert_eq!(adjusted(4, Some(0.1)), 2);
        assert!(usable_cpus() >= 1);
        let _ = fs::remove_dir_all(none);
    }
}
