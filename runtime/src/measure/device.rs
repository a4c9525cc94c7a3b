//! What device this is, and the state it is in: read from `/proc` and `/sys`, never changed. Unknown is `null`.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// A device, before or after a measurement the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    /// `/proc/device-tree/model`, or the board's or machine's name.
    pub model: Option<String>,
    /// First string of `/proc/device-tree/compatible`: what a budget's `device` names.
    pub compatible: Option<String>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Architecture that this program was built for.
    pub arch: &'static str,
    /// Processors that this process may use.
    pub cores: usize,
    /// Instruction sets beyond the architecture's base that matter to kernels.
    pub features: Vec<String>,
    /// Operating system's name.
    pub os: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// C library that this program was built for.
    pub libc: &'static str,
    /// Clock governor of the first processor.
    pub governor: Option<String>,
    /// Whether an emulator runs this program: its times say nothing about the device.
    pub emulated: bool,
    /// State before the measurements.
    pub before: State,
    /// State after them.
    pub after: State,
}

/// What changes while a device works.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct State {
    /// Clock of the first processor, in MHz.
    pub mhz: Option<f64>,
    /// The hottest thermal zone, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Raspberry Pi's throttling bits: 0-3 now, 16-19 since boot.
    pub throttled: Option<u32>,
    /// Load average of the last minute.
    pub load_1_min: Option<f64>,
}

impl Device {
    /// Reads identity and state.
    pub fn read() -> Self {
        let state = State::read();
        let cpuinfo = text("/proc/cpuinfo").unwrap_or_default();
        Self {
            model: text("/proc/device-tree/model").or_else(|| dmi("product_name")).or_else(|| dmi("board_name")),
            compatible: text("/proc/device-tree/compatible"),
            cpu: field(&cpuinfo, &["model name", "Hardware", "Model", "uarch"]).or_else(|| arm_part(&cpuinfo)),
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(&cpuinfo),
            os: text("/etc/os-release").and_then(|text| os_name(&text)),
            kernel: text("/proc/sys/kernel/osrelease"),
            libc: if cfg!(target_env = "musl") {
                "musl"
            } else if cfg!(target_env = "gnu") {
                "gnu"
            } else {
                "other"
            },
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            emulated: emulated(&cpuinfo),
            before: state.clone(),
            after: state,
        }
    }

    /// Reads the state once more, after the measurements.
    pub fn read_after(&mut self) {
        self.after = State::read();
    }

    /// Why times measured between the two states are not valid, if they are not.
    pub fn invalid(&self) -> Option<String> {
        if self.emulated {
            return Some("an emulator runs this program".into());
        }
        // Bits 16-19 stay set once it happened; 0-3 say that it happens now (Raspberry Pi documentation, get_throttled).
        let (before, after) = (self.before.throttled?, self.after.throttled?);
        let new = (after & !before & 0xf_0000) | (after & 0xf);
        match new {
            0 => None,
            _ if new & 0x1_0001 != 0 => Some(format!("the supply voltage was too low (throttled={after:#x})")),
            _ => Some(format!("the processor was throttled (throttled={after:#x})")),
        }
    }
}

impl State {
    fn read() -> Self {
        let number = |path: &str| text(path).and_then(|text| text.parse::<f64>().ok());
        let mhz = number("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").map(|khz| khz / 1000.0);
        let cpuinfo = || field(&text("/proc/cpuinfo")?, &["cpu MHz"])?.parse::<f64>().ok();
        let zones = (0..64).map_while(|i| number(&format!("/sys/class/thermal/thermal_zone{i}/temp")));
        let throttled = text("/sys/devices/platform/soc/soc:firmware/get_throttled");
        Self {
            mhz: mhz.or_else(cpuinfo),
            temperature_c: zones.map(|millidegrees| millidegrees / 1000.0).reduce(f64::max),
            throttled: throttled.and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()),
            load_1_min: text("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }
}

/// A short text file's first string; `None` if it is missing or empty.
fn text(path: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let string = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let string = String::from_utf8_lossy(string).trim().to_string();
    (!string.is_empty()).then_some(string)
}

fn dmi(name: &str) -> Option<String> {
    text(&format!("/sys/class/dmi/id/{name}"))
}

/// The first of these fields of `/proc/cpuinfo`.
fn field(cpuinfo: &str, names: &[&str]) -> Option<String> {
    let of = |name: &&str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == *name))?;
        Some(line.split_once(':')?.1.trim().to_string()).filter(|value| !value.is_empty())
    };
    names.iter().find_map(of)
}

/// The name of an Arm core by its part number: what 64-bit kernels give instead of a name.
fn arm_part(cpuinfo: &str) -> Option<String> {
    let part = field(cpuinfo, &["CPU part"])?;
    let name = match part.as_str() {
        "0xd03" => "Cortex-A53",
        "0xd04" => "Cortex-A35",
        "0xd05" => "Cortex-A55",
        "0xd07" => "Cortex-A57",
        "0xd08" => "Cortex-A72",
        "0xd0b" => "Cortex-A76",
        "0xd42" => "Cortex-A78AE",
        _ => return Some(format!("Arm part {part}")),
    };
    Some(name.into())
}

fn features(cpuinfo: &str) -> Vec<String> {
    const WANTED: &[&str] = &[
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "avx_vnni",
        "asimd",
        "asimddp",
        "asimdhp",
        "i8mm",
        "bf16",
        "sve",
        "neon",
        "vfpv4",
    ];
    let flags = field(cpuinfo, &["flags", "Features"]).unwrap_or_default();
    flags.split_whitespace().filter(|flag| WANTED.contains(flag)).map(str::to_string).collect()
}

fn os_name(release: &str) -> Option<String> {
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_string())
}

/// User-mode emulators show the host's `/proc` and `/sys`: an Arm program that finds an x86 kernel or processor runs in
/// one. (A 32-bit Arm program on a 64-bit Arm kernel does not.)
fn emulated(cpuinfo: &str) -> bool {
    const X86: &[&str] = &["x86_64", "i386", "i686"];
    let program_is_x86 = cfg!(any(target_arch = "x86_64", target_arch = "x86"));
    let kernel = text("/proc/sys/kernel/arch");
    let vendor = field(cpuinfo, &["vendor_id"]);
    let host_is_x86 = kernel.as_ref().is_some_and(|arch| X86.contains(&arch.as_str()))
        || vendor.is_some_and(|vendor| ["GenuineIntel", "AuthenticAMD", "HygonGenuine"].contains(&vendor.as_str()))
        || Path::new("/sys/devices/system/cpu/microcode").exists();
    let host_is_arm = kernel.is_some_and(|arch| arch.starts_with("aarch64") || arch.starts_with("arm"));
    if program_is_x86 { host_is_arm } else { host_is_x86 }
}
