//! Every model at hand is read, or refused in one line; what is read and written again is the same.

use std::path::{Path, PathBuf};

use kd_runtime::onnx;

fn shared(folder: &str) -> PathBuf {
    let quant = std::env::var_os("KD_GOLDEN").filter(|_| folder == "golden/quant");
    quant.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder), PathBuf::from)
}

/// The models of a folder, sorted by name.
fn models(folder: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(shared(folder)) else {
        println!("skipped: no folder {}", shared(folder).display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    (paths.iter())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect()
}

/// Reads, writes and reads again; the complaint if anything differs.
fn complaint(bytes: &[u8]) -> Result<String, String> {
    let model = onnx::read(bytes).map_err(|refusal| refusal.to_string())?;
    let written = onnx::write(&model.graph);
    let again = onnx::read(&written).map_err(|refusal| format!("what was written is refused: {refusal}"))?;
    if onnx::write(&again.graph) != written {
        return Err("written again, it differs".into());
    }
    let stats = model.graph.stats().map_err(|refusal| refusal.to_string())?;
    Ok(format!("{} nodes, {} MACs, {:?}", model.graph.nodes.len(), stats.macs, model.notes))
}

#[test]
fn models_of_others_are_read_or_refused_in_one_line() {
    for folder in ["data/zoo", "data/models", "data/zoo/ecg200-external", "data/zoo/mnist-external"] {
        for (name, bytes) in models(folder) {
            let line = complaint(&bytes).unwrap_or_else(|refusal| format!("refused: {refusal}"));
            assert!(!line.contains('\n') && !line.contains("written"), "{name}: {line}");
            println!("{name}: {line}");
        }
    }
}

#[test]
fn quantized_models_are_read_except_those_of_16_bits() {
    for (name, bytes) in models("golden/quant") {
        let result = complaint(&bytes);
        let expected = !name.contains("u16") && !name.contains("s16");
        assert_eq!(result.is_ok(), expected, "{name}: {result:?}");
        if let Err(refusal) = result {
            println!("{name}: {refusal}");
        }
    }
}
