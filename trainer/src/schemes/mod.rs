//! Who teaches whom, and when: [`learner`] has one network that learns from the labels, from frozen teachers and from
//! itself.

pub mod exchange;
pub mod learner;
pub mod meeting;
pub mod table;
pub mod terms;

mod left;
mod owed;
mod store;
mod teachers;
#[cfg(test)]
mod tests;

pub use teachers::Feed;

/// Where in a stage of a run a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Whether the stage is the first one, of `distill.init_epochs`: only terms of that stage count there.
    pub init: bool,
    /// From 0, in its stage.
    pub step: usize,
    /// Of the whole stage.
    pub steps: usize,
    /// Of one epoch.
    pub steps_per_epoch: usize,
}
