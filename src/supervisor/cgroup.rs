//! Limits of this process's control groups: processor time and memory, in both versions (cgroups(7)). A limit of a
//! group holds for all groups below it, so the lowest limit up to the root counts.

use std::fs;
use std::path::{Path, PathBuf};

/// In version 1, a limit from this value on means "none": it is the greatest multiple of a page.
const NO_LIMIT: u64 = 1 << 62;

/// The quota of processor time, in processors: 1.5 is one and a half seconds in each second. `None` if there is no
/// limit or it cannot be read.
pub(super) fn cpu_quota() -> Option<f64> {
    least(&groups("cpu"), |folder| quota_in(&read_file, folder))
}

/// The memory limit in bytes. `None` if there is no limit or it cannot be read.
pub(super) fn memory_limit() -> Option<u64> {
    least(&groups("memory"), |folder| memory_in(&read_file, folder))
}

fn read_file(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn least<T: PartialOrd>(folders: &[PathBuf], limit: impl Fn(&Path) -> Option<T>) -> Option<T> {
    folders.iter().filter_map(|folder| limit(folder)).reduce(|least, other| if other < least { other } else { least })
}

/// The folders in which a controller may keep its files for this process's groups, up to the root.
fn groups(controller: &str) -> Vec<PathBuf> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    folders(controller, &read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// `membership` is the text of `/proc/self/cgroup`, `mounts` that of `/proc/self/mountinfo` (proc(5)).
fn folders(controller: &str, membership: &str, mounts: &str) -> Vec<PathBuf> {
    // "4:cpu,cpuacct:/path" in version 1, "0::/path" in version 2.
    let path_of = |is_ours: &dyn Fn(&str, &str) -> bool| {
        let mut parts = membership.lines().map(|line| line.splitn(3, ':'));
        parts.find_map(|mut parts| {
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            is_ours(id, controllers).then(|| path.to_owned())
        })
    };
    let first = path_of(&|_, controllers| controllers.split(',').any(|name| name == controller));
    let second = path_of(&|id, controllers| id == "0" && controllers.is_empty());
    let mut folders = Vec::new();
    for line in mounts.lines() {
        // "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw": root, mount point … type, source, options.
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let front: Vec<_> = front.split(' ').collect();
        let back: Vec<_> = back.split(' ').collect();
        let ([_, _, _, root, mount, ..], [kind, _, options, ..]) = (front.as_slice(), back.as_slice()) else {
            continue;
        };
        let path = match *kind {
            "cgroup2" => second.as_ref(),
            "cgroup" if options.split(',').any(|option| option == controller) => first.as_ref(),
            _ => None,
        };
        let Some(path) = path else { continue };
        // Inside a container, the mount may begin at the group itself.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let folder = Path::new(mount).join(below);
        folders.extend(folder.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_owned));
    }
    folders
}

fn quota_in(read: &impl Fn(&Path) -> Option<String>, folder: &Path) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    let (quota, period) = match read(&folder.join("cpu.max")) {
        // "max 100000" or "150000 100000".
        Some(text) => {
            let (quota, period) = text.split_once(' ')?;
            (number(quota)?, number(period)?)
        }
        // No quota is -1.
        None => {
            let part = |name| number(&read(&folder.join(name))?);
            (part("cpu.cfs_quota_us")?, part("cpu.cfs_period_us")?)
        }
    };
    Some(quota / period)
}

fn memory_in(read: &impl Fn(&Path) -> Option<String>, folder: &Path) -> Option<u64> {
    let text = read(&folder.join("memory.max")).or_else(|| read(&folder.join("memory.limit_in_bytes")))?;
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_up_to_the_root() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let split = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                     36 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let membership = "4:memory:/docker/ab\n3:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/system.slice/sluice.service\n";
        let table = [
            (
                "cpu",
                unified,
                &["/sys/fs/cgroup/system.slice/sluice.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"][..],
            ),
            (
                "cpu",
                split,
                &["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/cpu,cpuacct"],
            ),
            ("memory", split, &["/sys/fs/cgroup/memory"]),
            ("cpu", "31 23 0:28 / /sys rw - sysfs sysfs rw\nnonsense\n", &[]),
        ];
        for (controller, mounts, expected) in table {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(folders(controller, membership, mounts), expected, "{controller} in {mounts}");
        }
    }

    #[test]
    fn limits_are_read_and_the_least_counts() {
        let files = [
            ("/two/cpu.max", "max 100000\n"),
            ("/two/memory.max", "max\n"),
            ("/two/a/cpu.max", "150000 100000\n"),
            ("/two/a/memory.max", "1073741824\n"),
            ("/two/a/b/cpu.max", "200000 100000\n"),
            ("/one/cpu.cfs_quota_us", "-1\n"),
            ("/one/cpu.cfs_period_us", "100000\n"),
            ("/one/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/one/a/cpu.cfs_quota_us", "50000\n"),
            ("/one/a/cpu.cfs_period_us", "100000\n"),
            ("/one/a/memory.limit_in_bytes", "4096\n"),
            ("/odd/cpu.max", "a lot"),
            ("/odd/memory.max", ""),
        ];
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
        let table = [
            (&["/two/a/b", "/two/a", "/two"][..], Some(1.5), Some(1 << 30)),
            (&["/two"], None, None),
            (&["/one/a", "/one"], Some(0.5), Some(4096)),
            (&["/one"], None, None),
            (&["/odd", "/nowhere"], None, None),
        ];
        for (folders, quota, memory) in table {
            let folders: Vec<_> = folders.iter().map(PathBuf::from).collect();
            assert_eq!(least(&folders, |folder| quota_in(&read, folder)), quota, "{folders:?}");
            assert_eq!(least(&folders, |folder| memory_in(&read, folder)), memory, "{folders:?}");
        }
    }
}
