//! What a study of several methods over several data sets needs besides training.

pub mod asked;
pub mod diagram;
pub mod lift;
pub mod made_of;
pub mod ranks;
pub mod runs;
pub mod sets;
