//! Doing what a recipe says, in a folder that survives a kill: [`fit`] trains one network, [`session`] all of them.

mod arms;
pub mod checkpoint;
pub mod clock;
pub mod evidence;
mod exits;
pub mod fit;
pub mod folder;
mod insight;
mod means;
pub mod monitor;
pub mod plot;
mod ranks;
pub mod replicas;
pub mod report;
pub mod results;
pub mod saved;
pub mod session;
mod side_by_side;
pub mod signals;
pub mod table;
mod teachers;
mod tensorboard;
#[cfg(test)]
mod tests;
