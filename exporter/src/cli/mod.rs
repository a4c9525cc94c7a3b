//! The program kd-export.
