//! `kd-train check`: what a recipe would do, without doing it.

use std::io::Write;

use kd_runtime::Result;

use super::args::Check;

/// Prints the resolved recipe, sizes, MACs, memory and whether the student can meet the budget.
pub fn run(args: &Check, out: &mut dyn Write) -> Result<()> {
    let _ = (args, out);
    todo!()
}
