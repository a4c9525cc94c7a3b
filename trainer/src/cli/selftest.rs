//! `kd-train selftest`: a device beside this machine.

use std::io::Write;

use kd_runtime::files::refuse_write;
use kd_runtime::report::json;
use kd_runtime::{Exit, Refusal, Result};

use super::args::{Format, Selftest};
use crate::exec::{Compute, cases};
use crate::gpu::{Convolutions, Gpu, Precision};
use crate::recipe::{Device, parse};
use crate::selftest::Report;

pub(super) fn run(args: &Selftest, out: &mut dyn Write) -> Result<()> {
    let precision = Precision::of(&args.precision);
    let gpu = match parse::device(&args.device) {
        Some(Device::Cpu) if precision == Precision::F32 => None,
        Some(Device::Cpu) => {
            let action = "name a GPU as --device, or leave it out";
            return Err(Refusal::new("--precision", "f32 on a processor", "`tf32`", action));
        }
        Some(Device::Cuda(n)) => Some(Gpu::open(n, precision)?),
        None => {
            let found = format!("`{}`", kd_runtime::error::Shown(&args.device));
            return Err(Refusal::new("--device", "`cpu` or `cuda:N`", found, "name one of them"));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut networks = cases::all();
    networks.extend(cases::wide::cases());
    tell(&Report::of(Compute { threads, gpu: gpu.as_ref() }, &networks)?, args.format, out)
}

/// Gives the report, and refuses the device if something fails.
fn tell(report: &Report, format: Format, out: &mut dyn Write) -> Result<()> {
    let text = match format {
        Format::Json => json::pretty(report),
        Format::Text => render(report),
    };
    out.write_all(text.as_bytes()).map_err(|e| refuse_write("standard output".as_ref(), &e))?;
    let failures = report.failures();
    let Some(first) = failures.first() else { return Ok(()) };
    let found = format!("{} that fail, first {first}", failures.len());
    let action = "use another device, and report it with this output";
    Err(Refusal::new(&report.device, "values within their bounds", found, action).with_exit(Exit::VerdictFailed))
}

fn render(report: &Report) -> String {
    let mut lines = vec![format!("device    {}", report.device), String::new()];
    for (what, all) in [("operator", &report.operators), ("loss", &report.losses)] {
        if all.is_empty() {
            continue;
        }
        lines.push(format!("{what:20} {:>4} {:>6} {:>9} {:>9}", "on", "cases", "worst", "bound"));
        for line in all {
            let verdict = if line.failed.is_empty() { "" } else { "  FAILS" };
            let (op, on, cases, worst) = (line.op, line.on, line.cases, line.worst);
            lines.push(format!("{op:20} {on:>4} {cases:>6} {worst:>9.1e} {:>9.1e}{verdict}", report.bound));
        }
        lines.push(String::new());
    }
    for learning in &report.learning {
        let ([first, last], [losses, parameters]) = (learning.losses, learning.worst);
        let verdict = learning.failure().map_or("", |_| "  FAILS");
        let (about, [of_losses, of_parameters]) = (learning.about, learning.bounds);
        lines.push(format!(
            "learning with {about:20} loss {first:.3} to {last:.3}, losses off by {losses:.1e} of {of_losses:.0e}, \
             parameters by {parameters:.1e} of {of_parameters:.0e}{verdict}"
        ));
    }
    if let Some(Convolutions { library, own, reason }) = &report.convolutions {
        let reason = reason.as_ref().map_or(String::new(), |reason| format!(", the first: {reason}"));
        lines.push(format!("\nconvolutions: {library} by cuDNN, {own} by our own kernels{reason}"));
    }
    let failures = report.failures();
    let verdict = if failures.is_empty() { "passed".into() } else { format!("{} failed", failures.len()) };
    lines.push(format!("\n{verdict}\n"));
    lines.extend(failures);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::Line;

    #[test]
    fn a_report_of_what_fails_is_whole() {
        let line = |op, failed: &[&str]| Line {
            op,
            on: "gpu",
            failed: failed.iter().map(|f| f.to_string()).collect(),
            ..Line::default()
        };
        let operators = vec![line("Conv", &["Conv: off", "Conv: other bits"]), line("Relu", &[])];
        let (device, losses) = ("a GPU".to_string(), vec![line("kd", &["kd: off"])]);
        let convolutions = Some(Convolutions { library: 7, own: 1, reason: Some("Forward: pads that differ".into()) });
        let learning = vec![];
        let report = Report { schema: "kd.selftest/2", device, bound: 2e-5, operators, losses, learning, convolutions };
        let by = "7 by cuDNN, 1 by our own kernels, the first: Forward: pads that differ";
        for (format, every) in [
            (Format::Text, ["Conv: off", "Conv: other bits", "kd: off", "3 failed", by]),
            (Format::Json, ["Conv: off", "Conv: other bits", "kd: off", "\"a GPU\"", "\"library\": 7"]),
        ] {
            let mut out = Vec::new();
            let refusal = tell(&report, format, &mut out).unwrap_err();
            let text = String::from_utf8(out).unwrap();
            assert!(every.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(refusal.exit, Exit::VerdictFailed);
            let told = "a GPU: expected values within their bounds, found 3 that fail, first Conv: off; ";
            assert!(refusal.to_string().starts_with(told), "{refusal}");
        }
    }
}
