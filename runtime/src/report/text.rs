//! A report as text, readable without color.

use std::fmt::{self, Write};

use super::Report;
use crate::error::Shown;

/// The text of a report; ends with the verdict, if there is one.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = head(&mut text, report).and_then(|()| figures(&mut text, report)).and_then(|()| verdict(&mut text, report));
    text
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let model = &report.model;
    let mut facts = vec![format!("{:.1} KiB", model.size_bytes as f64 / 1024.0)];
    facts.extend(model.precision.map(str::to_string));
    facts.extend(model.parameters.map(|n| format!("{} parameters", grouped(n))));
    facts.extend(model.macs.map(|n| format!("{} MACs", grouped(n))));
    writeln!(out, "model     {} ({})", Shown(&model.path), facts.join(", "))?;
    writeln!(out, "sha256    {}", model.sha256)?;
    let device = &report.device;
    let names = [&device.model, &device.cpu].into_iter().flatten().cloned();
    let mut facts: Vec<String> = names.collect();
    facts.push(device.arch.into());
    facts.push(plural(device.cores as u64, "core"));
    facts.extend(device.governor.as_ref().map(|governor| format!("governor {governor}")));
    facts.extend(device.after.mhz.map(|mhz| format!("{mhz:.0} MHz")));
    facts.extend(device.after.temperature_c.map(|celsius| format!("{celsius:.0} °C")));
    writeln!(out, "device    {}", Shown(&facts.join(", ")))?;
    writeln!(out, "backend   {}, {}", report.backend, plural(report.threads as u64, "thread"))
}

fn figures(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "load      {} ms, first inference {} ms", number(report.load_ms), number(report.first_ms))?;
    let latency = &report.latency_ms;
    let shown = |x: Option<f64>| x.map_or("-".into(), number);
    writeln!(
        out,
        "latency   min {}, p50 {}, p90 {}, p95 {}, p99 {} ms (n = {})",
        shown(latency.min),
        shown(latency.p50),
        shown(latency.p90),
        shown(latency.p95),
        shown(latency.p99),
        grouped(latency.n as u64),
    )?;
    let memory = &report.memory;
    write!(
        out,
        "memory    {:.2} MiB (peak {:.2}, empty process {:.2})",
        (memory.peak_mib - memory.empty_mib).max(0.0),
        memory.peak_mib,
        memory.empty_mib,
    )?;
    if let (Some(arena), Some(weights)) = (memory.arena_bytes, memory.weights_bytes) {
        write!(out, ", arena {} B, weights {} B", grouped(arena as u64), grouped(weights as u64))?;
    }
    if let Some(allocations) = memory.allocations_per_inference {
        write!(out, ", {} allocations an inference", number(allocations))?;
    }
    writeln!(out)?;
    if let Some(accuracy) = &report.accuracy {
        let (low, high) = accuracy.ci;
        let percent = |share: f64| share * 100.0;
        let n = grouped(accuracy.n);
        let (low, high) = (percent(low), percent(high));
        writeln!(out, "accuracy  {:.2} % (n = {n}, 95 % interval {low:.2} to {high:.2})", percent(accuracy.top1))?;
    }
    for note in &report.notes {
        writeln!(out, "note      {}", Shown(note))?;
    }
    Ok(())
}

fn verdict(out: &mut String, report: &Report) -> fmt::Result {
    let Some(verdict) = report.verdict else { return Ok(()) };
    let name = report.budget_name.as_deref().unwrap_or("budget");
    let width = report.budget.iter().map(|line| line.name.len()).max().unwrap_or(0).max(8);
    writeln!(out, "\n{}", Shown(name))?;
    writeln!(out, "  {:width$} {:>12} {:>12} {:>12}  verdict", "", "limit", "measured", "95 % bound")?;
    for line in &report.budget {
        let shown = |x: Option<f64>| x.map_or("-".into(), number);
        let (limit, measured, bound) = (number(line.limit), shown(line.measured), shown(line.bound));
        write!(out, "  {:width$} {limit:>12} {measured:>12} {bound:>12}  {}", line.name, line.verdict.word())?;
        match &line.note {
            Some(note) => writeln!(out, ": {}", Shown(note))?,
            None => writeln!(out)?,
        }
    }
    writeln!(out, "\nverdict: {}", verdict.word())
}

/// Four significant digits, as many decimals as that takes; three and an exponent for what is very small.
pub fn number(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    if x.abs() < 1e-4 {
        return format!("{x:.2e}");
    }
    let decimals = (3.0 - x.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{x:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A count with commas between thousands.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        let cases = [
            (0.0, "0"),
            (0.012_345_6, "0.01235"),
            (5.539e-7, "5.54e-7"),
            (1.0, "1"),
            (50.0, "50"),
            (12.3456, "12.35"),
            (123_456.7, "123457"),
            (0.9, "0.9"),
        ];
        for (x, expected) in cases {
            assert_eq!(number(x), expected);
        }
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
