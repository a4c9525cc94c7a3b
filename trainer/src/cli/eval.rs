//! `kd-train eval`.

use std::io::Write;

use kd_runtime::Result;

use super::args::Eval;

pub(super) fn run(args: &Eval, out: &mut dyn Write) -> Result<()> {
    let _ = (args, out);
    todo!()
}
