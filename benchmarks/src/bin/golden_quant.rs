//! Prints a line per case of `golden/quant` (folder from `KD_GOLDEN` if set); exit 1 on a difference, 3 without them.

use std::process::ExitCode;

use kd_benchmarks::golden_quant::{self, Outcome};

fn main() -> ExitCode {
    let Some(folder) = kd_benchmarks::material("KD_GOLDEN", "golden/quant") else {
        println!("golden/quant: not there, nothing compared; set KD_GOLDEN to its folder");
        return ExitCode::from(3);
    };
    let cases = golden_quant::cases(&folder);
    let (mut same, mut refused, mut wrong) = (0, 0, 0);
    for case in &cases {
        let name = case.file_stem().unwrap_or_default().to_string_lossy();
        let line = match golden_quant::run(case) {
            Outcome::Exact => "ok, bit for bit".to_string(),
            Outcome::OneStep(n, of) => format!("ok, one step in {n} of {of}"),
            Outcome::Network(steps) => format!("ok, at most {steps:.2} steps at the output"),
            Outcome::Float(ratio) => format!("ok, floats in ONNX Runtime too: {ratio:.2} of its distance from f64"),
            Outcome::Refused(why) => {
                refused += 1;
                format!("refused: {why}")
            }
            Outcome::Differs(how) => {
                wrong += 1;
                format!("DIFFERS: {how}")
            }
        };
        same += usize::from(line.starts_with("ok"));
        println!("quant/{name}: {line}");
    }
    println!("golden/quant: {same} equal, {refused} refused, {wrong} different, of {} cases", cases.len());
    if wrong > 0 || cases.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
