//! Trains teachers, distils students.

use std::process::ExitCode;

/// Large arrays begin at a page, so no vector lies across two lines of the cache.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kd_trainer::cli::main()
}
