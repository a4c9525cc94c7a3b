//! Which of several processes this is: what launchers say in the environment.
//!
//! torchrun and Kubernetes' training operators set `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`. Slurm's
//! `SLURM_PROCID` and `SLURM_NTASKS` stand for the first two where they are missing and `MASTER_ADDR` is set.

use std::time::Duration;

use kd_runtime::{Refusal, Result};

/// Most processes of a group.
const MOST: usize = 1024;
/// How long ranks wait for each other at the start, unless `KD_JOIN_S` says otherwise.
const JOIN_S: u64 = 300;

/// One of several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are, at least 2.
    pub of: usize,
    /// Name or address of the machine of rank 0.
    pub host: String,
    /// Where rank 0 listens.
    pub port: u16,
    /// How long ranks wait for each other at the start.
    pub wait: Duration,
}

impl Launch {
    /// What the environment says; none where this process is alone.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::read(&|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let number = |name: &str, expected: String, range: std::ops::RangeInclusive<u64>| -> Result<u64> {
            let action = format!("set {name}, or unset WORLD_SIZE to train in one process");
            let found = get(name);
            let parsed = found.as_ref().and_then(|text| text.parse().ok()).filter(|n| range.contains(n));
            let found = found.map_or_else(|| "nothing".to_string(), |text| format!("`{text}`"));
            parsed.ok_or_else(|| Refusal::new(name, expected, found, action))
        };
        // Slurm counts the tasks of every job, also of one that trains in one process: MASTER_ADDR says that it does not.
        let names = match (get("WORLD_SIZE"), get("MASTER_ADDR")) {
            (Some(_), _) => ["WORLD_SIZE", "RANK"],
            (None, Some(_)) if get("SLURM_NTASKS").is_some() => ["SLURM_NTASKS", "SLURM_PROCID"],
            _ => return Ok(None),
        };
        let of = number(names[0], format!("how many processes train together, 1 to {MOST}"), 1..=MOST as u64)?;
        if of == 1 {
            return Ok(None);
        }
        let name = if get("RANK").is_some() { "RANK" } else { names[1] };
        let rank = number(name, format!("the number of this process, 0 to {}", of - 1), 0..=of - 1)?;
        let Some(host) = get("MASTER_ADDR") else {
            let (expected, action) =
                ("name or address of the machine of rank 0", "set MASTER_ADDR, or unset WORLD_SIZE");
            return Err(Refusal::new("MASTER_ADDR", expected, "nothing", action));
        };
        // torchrun's agent listens on its port itself, and says so.
        let taken = u64::from(get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"));
        let most = u64::from(u16::MAX) - taken;
        let port = number("MASTER_PORT", format!("a port of rank 0's machine, 1 to {most}"), 1..=most)? + taken;
        let wait = match get("KD_JOIN_S") {
            Some(_) => number("KD_JOIN_S", "seconds that ranks wait for each other, 1 to 86400".into(), 1..=86_400)?,
            None => JOIN_S,
        };
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        Ok(Some(Self { rank: rank as usize, of: of as usize, host, port, wait: Duration::from_secs(wait) }))
    }
}

/// The cores that this process may take: those of the machine, or its part of them where torchrun started several here
/// (`LOCAL_WORLD_SIZE`). Slurm binds each task to cores of its own.
pub fn own_cores() -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    part_of(all, std::env::var("LOCAL_WORLD_SIZE").ok().as_deref())
}

fn part_of(cores: usize, processes: Option<&str>) -> usize {
    let processes = processes.and_then(|text| text.parse().ok()).unwrap_or(1).max(1);
    (cores / processes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::read(&|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
    }

    const TORCH: [(&str, &str); 4] =
        [("RANK", "1"), ("WORLD_SIZE", "3"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn launchers_say_who_this_is() {
        let expected =
            Launch { rank: 1, of: 3, host: "10.0.0.1".into(), port: 29500, wait: Duration::from_secs(JOIN_S) };
        assert_eq!(read(&TORCH), Ok(Some(expected.clone())));
        let slurm = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "3"), TORCH[2], TORCH[3]];
        assert_eq!(read(&slurm), Ok(Some(expected.clone())));
        let agent = [&TORCH[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("KD_JOIN_S", "9")]].concat();
        assert_eq!(read(&agent), Ok(Some(Launch { port: 29501, wait: Duration::from_secs(9), ..expected })));
    }

    #[test]
    fn one_process_is_alone() {
        for alone in [&[][..], &[("WORLD_SIZE", "1")], &slurm_without_address(), &[("WORLD_SIZE", "")]] {
            assert_eq!(read(alone), Ok(None), "{alone:?}");
        }
    }

    fn slurm_without_address() -> [(&'static str, &'static str); 2] {
        [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let wrong = [
            ("WORLD_SIZE", "0"),
            ("WORLD_SIZE", "two"),
            ("WORLD_SIZE", "1025"),
            ("RANK", "3"),
            ("RANK", "-1"),
            ("MASTER_PORT", "0"),
            ("MASTER_PORT", "65536"),
            ("KD_JOIN_S", "0"),
        ];
        for (name, value) in wrong {
            let set: Vec<_> = [(name, value)].into_iter().chain(TORCH).collect();
            let refusal = read(&set).expect_err(name);
            assert_eq!((refusal.at.as_str(), refusal.found), (name, format!("`{value}`")));
        }
        for missing in ["RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let set: Vec<_> = TORCH.into_iter().filter(|(name, _)| *name != missing).collect();
            let refusal = read(&set).expect_err(missing);
            assert_eq!((refusal.at.as_str(), refusal.found.as_str()), (missing, "nothing"));
        }
    }

    #[test]
    fn several_processes_of_a_machine_share_its_cores() {
        let parts = [None, Some("1"), Some("4"), Some("3"), Some("99"), Some("0"), Some(""), Some("many")];
        assert_eq!(parts.map(|processes| part_of(16, processes)), [16, 16, 4, 5, 1, 16, 16, 16]);
    }
}
