//! `cifar10_sheets SHEETS OUTPUT`: turns CIFAR-10 as tiled sheets into the binary layout that `cifar:` reads.
//!
//! SHEETS holds `train_00.jpg`, `train_01.jpg`, … of 50 x 50 images each and `train_labels.u8` with a byte an image. Every
//! 10,000 images make a batch; the last batch is the test part. Prints a line per file with its SHA-256.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kd_runtime::{Refusal, Result, files};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Images in a row and in a column of a sheet.
const TILES: usize = 50;
const SHEET: usize = TILES * TILES;
const BATCH: usize = 10_000;
const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let done = match &args[..] {
        [sheets, output] => convert(sheets, output),
        _ => {
            let found = format!("{} arguments", args.len());
            Err(Refusal::new("cifar10_sheets", "SHEETS OUTPUT", found, "name the folder of sheets and one to write to"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn convert(sheets: &Path, output: &Path) -> Result<()> {
    let path = sheets.join("train_labels.u8");
    let labels = files::read(&path)?;
    let batches = labels.len() / BATCH;
    if batches < 2 || labels.len() % BATCH != 0 || labels.iter().any(|&label| usize::from(label) >= CLASSES.len()) {
        let expected = format!("two or more times {BATCH} labels of 0 to {}", CLASSES.len() - 1);
        let found = format!("{} bytes", labels.len());
        return Err(Refusal::new(path.display(), expected, found, "copy the folder of sheets again"));
    }
    let folder = files::NewFolder::create(output, false)?;
    let mut records = Vec::with_capacity(BATCH * (1 + PIXELS));
    for (i, labels) in labels.chunks_exact(SHEET).enumerate() {
        add_sheet(&sheets.join(format!("train_{i:02}.jpg")), labels, &mut records)?;
        let (done, n) = ((i + 1) * SHEET / BATCH, records.len() / (1 + PIXELS));
        if n == BATCH {
            let name = if done == batches { "test_batch.bin".to_string() } else { format!("data_batch_{done}.bin") };
            files::write_atomic(&folder.path().join(&name), &records)?;
            println!("{name}: {n} images, sha256 {}", files::sha256(&records));
            records.clear();
        }
    }
    files::write_atomic(&folder.path().join("batches.meta.txt"), (CLASSES.join("\n") + "\n").as_bytes())?;
    folder.finish()
}

/// Adds a record for each image of a sheet, row by row.
fn add_sheet(path: &Path, labels: &[u8], records: &mut Vec<u8>) -> Result<()> {
    let refuse = |expected: &str, found: String| {
        Refusal::new(path.display(), expected, found, "copy the folder of sheets again")
    };
    let image = image::load_from_memory(&files::read(path)?).map_err(|e| refuse("a JPEG image", e.to_string()))?;
    let image = image.into_rgb8();
    let side = TILES * SIDE;
    if [image.width(), image.height()].map(|n| n as usize) != [side; 2] {
        let found = format!("{} x {} pixels", image.width(), image.height());
        return Err(refuse("a sheet of 50 x 50 images of 32 x 32", found));
    }
    for (tile, &label) in labels.iter().enumerate() {
        let (top, left) = (tile / TILES * SIDE, tile % TILES * SIDE);
        records.push(label);
        for channel in 0..3 {
            for row in image.as_raw().chunks_exact(3 * side).skip(top).take(SIDE) {
                records.extend(row[3 * left..3 * (left + SIDE)].chunks_exact(3).map(|rgb| rgb[channel]));
            }
        }
    }
    Ok(())
}
