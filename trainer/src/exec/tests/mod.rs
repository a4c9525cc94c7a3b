//! Tests of the executor: gradients against central differences, and what a step must keep.

mod candle;
mod differences;
mod engines;
mod partial;
mod single;
mod steps;
mod threads;
