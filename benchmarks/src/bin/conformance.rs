//! Prints how the native engine does on ONNX's node tests, per operator and in total; exit 1 if anything is wrong.
//! `--verbose` names every case that was refused. Folder of unpacked cases from `KD_NODE_TESTS` if set.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kd_benchmarks::conformance::{self, Counts, Outcome};

fn main() -> ExitCode {
    let verbose = std::env::args().any(|arg| arg == "--verbose");
    let Some(folder) = conformance::folder() else {
        println!("onnx-node-tests: not there, nothing compared; set KD_NODE_TESTS to the folder of unpacked cases");
        return ExitCode::from(3);
    };
    let mut counts = Counts::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let cases = conformance::cases(&folder);
    for case in &cases {
        let row = counts.entry(case.operator.clone()).or_default();
        match conformance::run(case) {
            Outcome::Passed => row[0] += 1,
            Outcome::Refused(why) => {
                row[1] += 1;
                *reasons.entry(conformance::reason(&why).unwrap_or("another reason")).or_default() += 1;
                if verbose {
                    println!("refused {}: {why}", case.name);
                }
            }
            Outcome::Wrong(how) => {
                row[2] += 1;
                println!("WRONG {}: {how}", case.name);
            }
        }
    }
    println!("{:24} {:>7} {:>7} {:>7}", "operator", "passed", "refused", "wrong");
    let mut total = [0; 3];
    for (operator, row) in &counts {
        println!("{operator:24} {:>7} {:>7} {:>7}", row[0], row[1], row[2]);
        (0..3).for_each(|k| total[k] += row[k]);
    }
    println!("{:24} {:>7} {:>7} {:>7}", "total", total[0], total[1], total[2]);
    for (reason, count) in reasons {
        println!("refused for {reason}: {count}");
    }
    if total[2] > 0 || cases.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
