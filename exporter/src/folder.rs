//! The export folder, written at once from one model in memory and read back equal.
