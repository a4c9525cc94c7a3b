//! Prints a line per case of `golden/train` and `golden/distill`; exit 1 on a difference and on what is not built, 3
//! without them.

use std::process::ExitCode;

use kd_benchmarks::golden_train::{self, Outcome};

fn main() -> ExitCode {
    let Some(folder) = kd_benchmarks::shared("golden") else {
        println!("golden/train, golden/distill: not there, nothing compared; put them at ../shared/golden");
        return ExitCode::from(3);
    };
    let lines = golden_train::run(&folder);
    let (mut equal, mut not_built, mut different) = (0, 0, 0);
    for (name, outcome) in &lines {
        match outcome {
            Outcome::Equal(off) => {
                equal += 1;
                println!("{name}: ok, off by at most {off:.1e} of the largest element");
            }
            Outcome::NotBuilt(what) => {
                not_built += 1;
                println!("{name}: not built yet: {what}");
            }
            Outcome::Differs(how) => {
                different += 1;
                println!("{name}: DIFFERS: {how}");
            }
        }
    }
    println!("golden/train, golden/distill: {equal} equal, {not_built} not built yet, {different} different");
    if different > 0 || not_built > 0 || equal == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
