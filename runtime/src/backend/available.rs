//! Memory that this process may still take.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory that can be had without swapping, in bytes: the least of what the machine has free (`MemAvailable` of
/// `/proc/meminfo`), what the control groups leave (a container's limit), and what is left of the address space (`ulimit
/// -v`). `None` where the system does not say.
pub fn available_bytes() -> Option<usize> {
    let read = |name: &str| fs::read_to_string(name).ok();
    let free = read("/proc/meminfo").and_then(|text| kib(&text, "MemAvailable:"));
    let groups = read("/proc/self/cgroup").and_then(|text| left_by_groups(&text, Path::new("/sys/fs/cgroup")));
    let space = read("/proc/self/limits").and_then(|limits| left_of_space(&limits, &read("/proc/self/status")?));
    [free, groups, space].into_iter().flatten().min()
}

/// The bytes of a line `NAME   123 kB`.
fn kib(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Address space below the limit of `/proc/self/limits` that `/proc/self/status` does not count yet.
fn left_of_space(limits: &str, status: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(kib(status, "VmSize:")?))
}

/// Files of a control group: its limit, its use, and the lines of `memory.stat` with what it would drop first.
struct Files {
    limit: &'static str,
    usage: &'static str,
    droppable: &'static str,
}

const VERSION_1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", droppable: "total_inactive_file " };
const VERSION_2: Files = Files { limit: "memory.max", usage: "memory.current", droppable: "inactive_file " };

/// What the control groups of a process leave: the least over the groups of `/proc/self/cgroup` below `root` and all above
/// them.
fn left_by_groups(membership: &str, root: &Path) -> Option<usize> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, files) = match controllers {
            "" => (root.to_path_buf(), VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), VERSION_1),
            _ => return None,
        };
        let at: PathBuf = mount.join(path.trim_start_matches('/'));
        at.ancestors().take_while(|folder| folder.starts_with(&mount)).filter_map(|folder| left(folder, &files)).min()
    };
    membership.lines().filter_map(group).min()
}

fn left(folder: &Path, files: &Files) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |text: String| text.trim().parse::<usize>().ok();
    // A group without a limit says `max`.
    let limit = read(files.limit).and_then(number)?;
    let used = read(files.usage).and_then(number)?;
    let droppable = read("memory.stat").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix(files.droppable).map(str::to_string))?;
        number(line)
    });
    Some(limit.saturating_sub(used.saturating_sub(droppable.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_space_that_is_limited_counts_what_is_taken() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space         1073741824  unlimited  bytes\n";
        assert_eq!(left_of_space(limits, "Name: x\nVmSize:\t  524288 kB\n"), Some(512 << 20));
        assert_eq!(left_of_space(limits, "VmSize:\t 2097152 kB\n"), Some(0));
        assert_eq!(left_of_space("Max address space  unlimited  unlimited  bytes\n", "VmSize: 1 kB"), None);
    }

    #[test]
    fn the_tightest_group_decides_without_what_it_would_drop() {
        let root = std::env::temp_dir().join(format!("kd-cgroups-{}", std::process::id()));
        let write = |at: &str, name: &str, text: &str| {
            fs::create_dir_all(root.join(at)).unwrap();
            fs::write(root.join(at).join(name), text).unwrap();
        };
        write("pod", "memory.max", "1000000\n");
        write("pod", "memory.current", "400000\n");
        write("pod", "memory.stat", "anon 300000\ninactive_file 50000\n");
        write("pod/app", "memory.max", "max\n");
        write("pod/app", "memory.current", "300000\n");
        write("memory/old", "memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/old", "memory.usage_in_bytes", "5\n");
        let left = |membership: &str| left_by_groups(membership, &root);
        assert_eq!(left("0::/pod/app\n"), Some(650_000));
        assert_eq!(left("12:cpu,cpuacct:/pod\n0::/elsewhere\n"), None);
        assert_eq!(left("4:memory:/old\n0::/pod/app\n"), Some(650_000));
        assert_eq!(left("4:memory:/old\n"), Some(9_223_372_036_854_771_707));
        fs::remove_dir_all(&root).unwrap();
    }
}
