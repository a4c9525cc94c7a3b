//! Every kernel, compiled by NVRTC for every compute capability that is meant. Needs the library, no GPU:
//! `cargo xtask cuda-check`, which `cargo xtask ci` runs too (its step `GPU kernels`).

use kd_trainer::gpu::compile;
use kd_trainer::gpu::source::SOURCES;

/// A100, Orin, L4, H100, B200.
const CAPABILITIES: &[[i32; 2]] = &[[8, 0], [8, 7], [8, 9], [9, 0], [10, 0]];

#[test]
#[ignore = "needs NVRTC: cargo xtask cuda-check"]
fn every_kernel_compiles_for_every_compute_capability() {
    for &[major, minor] in CAPABILITIES {
        let mut kernels = 0;
        for source in SOURCES {
            let code = compile(source, [major, minor]).unwrap_or_else(|refusal| panic!("{refusal}"));
            for kernel in source.kernels() {
                // The machine code's section of a function has its name.
                let section = format!("\0.text.{kernel}\0").into_bytes();
                let is_there = code.windows(section.len()).any(|bytes| bytes == section);
                assert!(is_there, "compute capability {major}.{minor}: {} lacks {kernel}", source.name);
                kernels += 1;
            }
        }
        println!("compute capability {major}.{minor}: {kernels} kernels of {} files", SOURCES.len());
    }
}
