//! Who teaches whom, and when: [`offline`] has frozen teachers.

pub mod offline;

mod teachers;
#[cfg(test)]
mod tests;
