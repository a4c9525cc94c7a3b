//! Doing what a recipe says, in a folder that survives a kill: [`fit`] trains one network, [`session`] all of them.

pub mod checkpoint;
pub mod clock;
pub mod evidence;
pub mod fit;
pub mod folder;
pub mod monitor;
pub mod plot;
pub mod report;
pub mod results;
pub mod session;
pub mod signals;
pub mod table;
#[cfg(test)]
mod tests;
