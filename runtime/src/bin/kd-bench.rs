//! Measures a model on this device and says whether it meets its budget.

use std::process::ExitCode;

use kd_runtime::measure::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    kd_runtime::cli::main()
}
