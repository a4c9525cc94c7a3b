//! Fold → calibrate → quantize → verify → write.

use std::io::Write;
use std::process::ExitCode;

use kd_runtime::budget::Verdict;
use kd_runtime::cli::usage;
use kd_runtime::report::json;
use kd_runtime::{Refusal, Result};

use super::args::{Args, Format};
use super::{source, text};
use crate::calibrate::{self, Calibration};
use crate::folder::{self, CalibrationRecord, Record, SCHEMA};
use crate::quantize::{self, Quantized};
use crate::{fold, verify};

/// Does what the arguments say.
pub fn run(args: &Args) -> Result<ExitCode> {
    calibrate::table::find(&args.calibration)?;
    if !args.force && args.output.symlink_metadata().is_ok() {
        let found = if args.output.is_dir() { "a folder" } else { "a file" };
        let action = "choose another --output, or --force to replace it";
        return Err(Refusal::new(args.output.display(), "an output folder that does not exist", found, action));
    }
    if let (Ok(output), Ok(model)) = (args.output.canonicalize(), args.model.canonicalize())
        && model.starts_with(&output)
    {
        let (found, action) = (format!("one that holds {}", args.model.display()), "choose another --output");
        return Err(Refusal::new(args.output.display(), "an output folder beside the model", found, action));
    }
    let opened = source::open(args)?;
    for note in &opened.notes {
        progress(note);
    }
    let float = fold::fold(&opened.graph)?;
    progress(&format!("folded {} nodes into {}", opened.graph.nodes.len(), float.nodes.len()));
    let mut calibration: Option<Calibration> = None;
    let mut quantized: Option<Quantized> = None;
    if let (true, Some(contract), Some(data)) = (args.int8, &opened.contract, &opened.data) {
        let found = calibrate::calibrate(&float, contract, &**data, &args.calibration, args.samples as usize)?;
        progress(&format!("calibrated on {} samples", found.samples));
        if found.samples < 32 {
            progress("fewer than 32 samples: ranges are uncertain");
        }
        quantized = Some(quantize::quantize(&float, &found)?);
        calibration = Some(found);
    }
    let int8 = quantized.as_ref().map(|quantized| &quantized.graph);
    let files = folder::files(&float, int8, opened.contract.as_ref())?;
    let (mut parity, mut accuracy) = (None, None);
    if let (Some(contract), Some(data)) = (&opened.contract, &opened.data) {
        let mut written = vec![(&float, files["model.onnx"].as_slice())];
        if let Some(int8) = int8 {
            written.push((int8, files["model.int8.onnx"].as_slice()));
            progress("comparing float and int8 on the test part");
            accuracy = Some(verify::compare(&float, int8, contract, &**data)?);
        }
        parity = Some(verify::parity(&opened.graph, &written, contract, &**data)?);
    }
    let holds = parity.as_ref().is_none_or(|parity| parity.pass)
        && accuracy.as_ref().is_none_or(|compared| compared.drop_points() <= args.max_drop);
    let record = Record {
        schema: SCHEMA,
        program: concat!("kd-export ", env!("CARGO_PKG_VERSION")).into(),
        command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        source: opened.source,
        files: folder::entries(&files),
        calibration: calibration.map(|c| CalibrationRecord { method: c.method, samples: c.samples }),
        integer_products: quantized.as_ref().map(|q| [q.integer_products, q.products]),
        stays_float: quantized.map(|q| q.stays_float).unwrap_or_default(),
        parity,
        accuracy,
        max_drop_points: args.max_drop,
        verdict: if holds { Verdict::Pass } else { Verdict::Fail },
    };
    folder::write(&args.output, args.force, &files, &record)?;
    usage::print(&match args.format {
        Format::Text => text::render(&record, &args.output),
        Format::Json => json::pretty(&record),
    })?;
    Ok(usage::status(Some(record.verdict)))
}

/// A line of progress.
fn progress(text: &str) {
    // Who does not listen does not stop the work.
    let _ = writeln!(std::io::stderr(), "kd-export: {}", kd_runtime::error::Shown(text));
}
