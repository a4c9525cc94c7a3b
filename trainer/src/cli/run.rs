//! `kd-train run`.

use std::io::Write;

use kd_runtime::Result;

use super::args::Run;

pub(super) fn run(args: &Run, out: &mut dyn Write) -> Result<()> {
    let _ = (args, out);
    todo!()
}
