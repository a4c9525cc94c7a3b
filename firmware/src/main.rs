//! Runs one model over its inputs and prints every output's bits: a line a sample, 8 hexadecimal digits a float.
//!
//! The same lines as kd-runtime's example `outputs` prints elsewhere, so that text equality is bit equality.
#![no_std]
#![no_main]

extern crate alloc;

use core::ptr::addr_of_mut;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprint, hprintln};
use embedded_alloc::LlffHeap;
use kd_runtime::engine::Engine;
use kd_runtime::onnx;
use panic_semihosting as _;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

const HEAP_BYTES: usize = 3 << 20;
static mut HEAP_MEMORY: [u8; HEAP_BYTES] = [0; HEAP_BYTES];

static MODEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.onnx"));
static INPUTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inputs.f32"));

#[entry]
fn main() -> ! {
    // SAFETY: called once, before any allocation, with memory that nothing else uses.
    unsafe { HEAP.init(addr_of_mut!(HEAP_MEMORY) as usize, HEAP_BYTES) };
    match run() {
        Ok(()) => debug::exit(debug::EXIT_SUCCESS),
        Err(refusal) => {
            hprintln!("error: {}", refusal);
            debug::exit(debug::EXIT_FAILURE);
        }
    }
    loop {
        cortex_m::asm::wfi();
    }
}

fn run() -> kd_runtime::Result<()> {
    let graph = onnx::read(MODEL)?.graph;
    let mut engine = Engine::new(&graph, 1)?;
    let sample_bytes = 4 * engine.inputs()[0].shape.iter().product::<usize>();
    for sample in INPUTS.chunks_exact(sample_bytes) {
        let x = engine.input_mut(0).get::<f32>();
        for (x, bytes) in x.iter_mut().zip(sample.chunks_exact(4)) {
            *x = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        engine.run()?;
        for y in engine.output(0).get::<f32>() {
            hprint!("{:08x}", y.to_bits());
        }
        hprintln!("");
    }
    Ok(())
}
