//! Files that hold a network's weights.

pub mod safetensors;
