//! Float beside int8, file beside memory, engine beside engine.
