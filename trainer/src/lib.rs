//! The GPU-box side of `kd`: trains teachers, distils students.
//!
//! `recipe` says what, `zoo` builds graphs, `exec` runs them forward and backward with `ops`, `losses` and `schemes` say
//! who learns what from whom, `optim` steps, `run` keeps it all in a folder that survives a kill.

pub mod exec;
pub mod gpu;
pub mod group;
pub mod losses;
pub mod ops;
pub mod optim;
pub mod options;

pub mod cli;
pub mod data;
pub mod recipe;
pub mod rng;
pub mod run;
pub mod schemes;
pub mod selftest;
pub mod teacher;
pub mod zoo;
