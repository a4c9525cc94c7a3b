//! Weights as safetensors, float or int8.
