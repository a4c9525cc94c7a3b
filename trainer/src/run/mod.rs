//! Doing what a recipe says, in a folder that survives a kill: [`fit`] trains one network, [`session`] all of them.

pub mod checkpoint;
pub mod fit;
pub mod monitor;
pub mod session;
pub mod signals;
