//! `outputs MODEL INPUTS`: runs a model over raw little-endian f32 inputs and prints every output's bits, a line a
//! sample, 8 hexadecimal digits a float. Firmware prints the same lines, so that text equality is bit equality.
//! `outputs --inputs DATA COUNT FILE CONTRACT` writes the first COUNT test samples of a data set as such inputs.

use std::path::Path;
use std::process::ExitCode;

use kd_runtime::contract::Contract;
use kd_runtime::data::{Sample, Source, Split};
use kd_runtime::engine::Engine;
use kd_runtime::{Refusal, Result, files, onnx};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["--inputs", data, count, file, contract] => write_inputs(data, count, Path::new(file), Path::new(contract)),
        [model, inputs] => print_outputs(Path::new(model), Path::new(inputs)),
        _ => Err(Refusal::new(
            "",
            "MODEL INPUTS, or --inputs DATA COUNT FILE CONTRACT",
            format!("{args:?}"),
            "see the source",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn write_inputs(data: &str, count: &str, file: &Path, contract: &Path) -> Result<()> {
    let contract = Contract::read(contract)?;
    let count: usize = count.parse().map_err(|e| Refusal::new("COUNT", "a number", e, "give one"))?;
    let dataset = Source::parse(data)?.open()?;
    let mut samples = dataset.read(Split::Test)?;
    let (mut sample, mut bytes) = (Sample::default(), Vec::new());
    for _ in 0..count {
        if !samples.next(&mut sample)? {
            break;
        }
        let mut x = vec![0.0; sample.values.len()];
        contract.prepare(&sample.values, &mut x);
        bytes.extend(x.iter().flat_map(|x| x.to_le_bytes()));
    }
    files::write_atomic(file, &bytes)
}

fn print_outputs(model: &Path, inputs: &Path) -> Result<()> {
    let graph = onnx::read(&files::read(model)?)?.graph;
    let mut engine = Engine::new(&graph, 1)?;
    let bytes = files::read(inputs)?;
    let sample_bytes = 4 * engine.inputs()[0].shape.iter().product::<usize>();
    for sample in bytes.chunks_exact(sample_bytes) {
        let x = engine.input_mut(0).get::<f32>();
        for (x, bytes) in x.iter_mut().zip(sample.chunks_exact(4)) {
            *x = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        engine.run()?;
        let line: String = engine.output(0).get::<f32>().iter().map(|y| format!("{:08x}", y.to_bits())).collect();
        println!("{line}");
    }
    Ok(())
}
