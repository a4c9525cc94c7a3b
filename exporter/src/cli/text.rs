//! The result for people.

use std::fmt::Write;
use std::path::Path;

use kd_runtime::error::Shown;

use crate::folder::Record;

/// A table of the files, what was compared, and the verdict.
pub fn render(record: &Record, output: &Path) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{args}");
    };
    line(format_args!("{}", Shown(&output.display().to_string())));
    for (name, entry) in &record.files {
        line(format_args!("  {name:<24} {:>12} bytes", entry.size_bytes));
    }
    let size = |name: &str| record.files.get(name).map(|entry| entry.size_bytes as f64);
    if let (Some(float), Some(int8)) = (size("model.onnx"), size("model.int8.onnx")) {
        line(format_args!("  int8 is {:.2} of float", int8 / float));
    }
    if let Some(calibration) = &record.calibration {
        line(format_args!("calibration   {}, {} samples", calibration.method, calibration.samples));
    }
    if let Some([integer, all]) = record.integer_products {
        line(format_args!("integers      {integer} of {all} convolutions and matrix products"));
    }
    for node in &record.stays_float {
        line(format_args!("stays float   {}", Shown(node)));
    }
    if let Some(parity) = &record.parity {
        let files = if parity.files_equal { "equal memory bit for bit" } else { "DIFFER from memory" };
        line(format_args!(
            "parity        folding moves outputs by {:.1e} of the largest; files {files} ({} samples)",
            parity.folded_difference, parity.samples
        ));
    }
    if let Some(found) = &record.accuracy {
        let share = |right: u64| 100.0 * right as f64 / found.n.max(1) as f64;
        line(format_args!(
            "accuracy      float {:.2} % ({} errors), int8 {:.2} % ({} errors), of {}",
            share(found.float_right),
            found.n - found.float_right,
            share(found.int8_right),
            found.n - found.int8_right,
            found.n
        ));
        let sqnr = found.sqnr_db.map_or("no noise".into(), |db| format!("{db:.1} dB above its noise"));
        line(format_args!("agreement     {:.2} % of answers; output {sqnr}", share(found.agree)));
        line(format_args!("max drop      {:.2} points, of {:.2} allowed", found.drop_points(), record.max_drop_points));
    } else {
        line(format_args!(
            "accuracy      not measured: {}",
            if record.integer_products.is_none() { "float only" } else { "no data" }
        ));
    }
    line(format_args!("verdict: {}", record.verdict.word()));
    text
}
