//! The state of one network's training in one file that is replaced whole.
