//! SIGINT and SIGTERM as a flag that training looks at after each step.

/// Whether to stop, and by which signal.
pub struct Stop;
