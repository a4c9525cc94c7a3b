//! `kd-train archs` and `kd-train methods`: the tables as text or JSON.

use std::io::Write;

use kd_runtime::Result;

use super::args::List;

/// Prints the architectures.
pub fn archs(args: &List, out: &mut dyn Write) -> Result<()> {
    let _ = (args, out);
    todo!()
}

/// Prints the methods.
pub fn methods(args: &List, out: &mut dyn Write) -> Result<()> {
    let _ = (args, out);
    todo!()
}
