//! Measures a model on this device and says whether it meets its budget.

fn main() {}
