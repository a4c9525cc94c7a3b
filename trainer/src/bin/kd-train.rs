//! Trains teachers, distils students.

use std::process::ExitCode;

fn main() -> ExitCode {
    kd_trainer::cli::main()
}
