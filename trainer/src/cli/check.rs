//! `kd-train check`: what a recipe would do, without doing it.

use std::fmt::Write as _;
use std::io::Write;

use kd_runtime::backend::available_bytes;
use kd_runtime::data::Reading;
use kd_runtime::report::json;
use kd_runtime::report::text::{grouped, number};
use kd_runtime::{Refusal, Result, files};
use serde::Serialize;

use super::args::{Check, Format};
use crate::data::{self, Prepared, reading};
use crate::recipe::precheck::{Forecast, precheck};
use crate::recipe::{Device, Recipe, TeacherSource, parse};
use crate::teacher::{self, Network};
use crate::zoo::Site;

/// What `--no-data` takes a format's samples to be: shape and classes.
static NOMINAL: &[(&str, &[usize], usize)] = &[
    ("cifar", &[3, 32, 32], 10),
    ("csv", &[16], 2),
    ("digits", &[1, 8, 8], 10),
    ("idx", &[1, 28, 28], 10),
    ("images", &[3, 224, 224], 10),
    ("npz", &[1, 128], 2),
    ("ucr", &[1, 128], 2),
    ("wav", &[1, 49, 10], 12),
];

/// What is printed; schema `kd.check/1`.
#[derive(Serialize)]
struct Checked {
    schema: &'static str,
    /// The complete recipe.
    recipe: toml::Table,
    recipe_sha256: String,
    data: Samples,
    /// Teachers that exist already.
    teachers: Vec<Given>,
    #[serde(flatten)]
    forecast: Forecast,
}

/// The data, or what `--no-data` takes it to be.
#[derive(Serialize)]
struct Samples {
    shape: Vec<usize>,
    classes: usize,
    /// Training, validation and test samples; none with `--no-data`.
    counts: Option<[usize; 3]>,
    /// Of the files as they are stored.
    sha256: Option<String>,
}

/// A teacher from a run or a file.
#[derive(Serialize)]
struct Given {
    name: String,
    sha256: String,
    parameters: u64,
    macs: u64,
}

/// Prints the complete recipe, sizes, MACs, memory and whether the student can meet the budget.
pub fn run(args: &Check, out: &mut dyn Write) -> Result<()> {
    let recipe = parse::read(&args.recipe, &args.overrides)?;
    let (samples, prepared, teachers) = if args.no_data {
        (nominal(&recipe)?, None, Vec::new())
    } else {
        let (data, teachers) = open(&recipe)?;
        (found(&data), Some(data), teachers)
    };
    let (teachers, opened): (Vec<Given>, Vec<Network>) = teachers.into_iter().unzip();
    let site = Site { input: samples.shape.clone(), classes: samples.classes };
    // A GPU is not opened: the machine that checks need not have it.
    let free = available_bytes().filter(|_| recipe.run.device == Device::Cpu);
    let forecast = precheck(&recipe, &site, prepared.as_ref(), &opened.iter().collect::<Vec<_>>(), free)?;
    let text = recipe.to_toml();
    let checked = Checked {
        schema: "kd.check/1",
        recipe_sha256: recipe.sha256(),
        recipe: toml::from_str(&text).unwrap_or_default(),
        data: samples,
        teachers,
        forecast,
    };
    let text = match args.format {
        Format::Json => json::pretty(&checked),
        Format::Text => text + &render(&checked),
    };
    out.write_all(text.as_bytes()).map_err(|e| files::refuse_write("standard output".as_ref(), &e))
}

fn nominal(recipe: &Recipe) -> Result<Samples> {
    let row = NOMINAL.iter().find(|row| row.0 == recipe.data.format);
    let &(_, shape, classes) = row.ok_or_else(|| {
        let known: Vec<&str> = NOMINAL.iter().map(|row| row.0).collect();
        let found = format!("`{}`", recipe.data.format);
        Refusal::new("--no-data", format!("a format of {}", known.join(", ")), found, "check it with its data")
    })?;
    let shape = match recipe.data.read.as_ref().map(reading::build).transpose()? {
        Some(Reading::Image(image)) => vec![image.channels, image.height, image.width],
        Some(Reading::Audio(audio)) => audio.sample_shape().0,
        Some(Reading::Columns(columns)) if !columns.features.is_empty() => vec![columns.features.len()],
        _ => shape.to_vec(),
    };
    Ok(Samples { shape, classes, counts: None, sha256: None })
}

/// Opens the data and the teachers that exist.
fn open(recipe: &Recipe) -> Result<(Prepared, Vec<(Given, Network)>)> {
    let data = data::prepare(recipe)?;
    let mut teachers = Vec::new();
    for given in recipe.teachers.iter().filter(|teacher| !matches!(teacher.source, TeacherSource::Arch { .. })) {
        let network = teacher::open(given, recipe, &data)?;
        let stats = network.graph.stats()?;
        let (parameters, macs) = (stats.parameters, stats.macs);
        let (name, sha256) = (network.name.clone(), network.sha256.clone());
        teachers.push((Given { name, sha256, parameters, macs }, network));
    }
    Ok((data, teachers))
}

fn found(data: &Prepared) -> Samples {
    Samples {
        shape: data.description.shape.clone(),
        classes: data.description.classes.len(),
        counts: Some([data.train.len(), data.validation.len(), data.test.len()]),
        sha256: Some(data.description.sha256.clone()),
    }
}

/// Comments behind the recipe, so that the whole can be saved as one.
fn render(checked: &Checked) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_lines(&mut out, checked);
    out
}

fn write_lines(out: &mut String, checked: &Checked) -> std::fmt::Result {
    let data = &checked.data;
    write!(
        out,
        "\n# recipe    sha256 {}\n# data      {:?}, {} classes",
        checked.recipe_sha256, data.shape, data.classes
    )?;
    match data.counts {
        Some([train, validation, test]) => {
            let [train, validation, test] = [train, validation, test].map(|n| grouped(n as u64));
            writeln!(out, "; {train} training, {validation} validation, {test} test samples")?;
        }
        None => writeln!(out, ", assumed; the data was not opened")?,
    }
    let kib = |bytes: u64| number(bytes as f64 / 1024.0);
    for given in &checked.teachers {
        let (parameters, macs) = (grouped(given.parameters), grouped(given.macs));
        writeln!(out, "# teacher   {}: {parameters} parameters, {macs} MACs", kd_runtime::error::Shown(&given.name))?;
    }
    for network in &checked.forecast.networks {
        let (parameters, macs) = (grouped(network.parameters), grouped(network.macs));
        let training = number(network.training_bytes as f64 / (1 << 20) as f64);
        writeln!(out, "# {:<9} {}: {parameters} parameters, {macs} MACs", network.name, network.arch)?;
        writeln!(out, "#           float {} KiB, training {training} MiB", kib(network.float_bytes))?;
        let memory = kib(network.int8_memory_bytes);
        writeln!(out, "#           int8 {} KiB, running {memory} KiB at least", kib(network.int8_bytes))?;
    }
    if let Some(peak) = checked.forecast.peak_bytes {
        writeln!(out, "# memory    {} MiB at the peak, with the data", number(peak as f64 / (1 << 20) as f64))?;
    }
    for note in &checked.forecast.notes {
        writeln!(out, "# note      {}", kd_runtime::error::Shown(note))?;
    }
    for line in &checked.forecast.budget {
        let measured = number(line.measured.unwrap_or(f64::NAN));
        writeln!(out, "# budget    {}: at least {measured}, limit {}: can be met", line.name, number(line.limit))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kd_runtime::data::FORMATS;

    use super::*;

    fn check(words: &[&str]) -> Result<String> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let budget = |word: &str| word.replace("ROOT", &root.display().to_string());
        let args = Check {
            recipe: root.join("recipes").join(words[0]),
            overrides: words[1..].iter().filter(|word| !word.starts_with("--")).map(|word| budget(word)).collect(),
            no_data: words.contains(&"--no-data"),
            format: if words.contains(&"--json") { Format::Json } else { Format::Text },
        };
        let mut out = Vec::new();
        run(&args, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    const DEMO: &str = "budget.file=ROOT/budgets/demo.toml";
    const TIGHT: &str = "budget.file=ROOT/budgets/tight.toml";

    #[test]
    fn the_examples_are_checked_without_their_data() {
        for (format, ..) in NOMINAL {
            assert!(FORMATS.iter().any(|row| row.name == *format), "{format}");
        }
        assert_eq!(NOMINAL.len(), FORMATS.len());
        let shown = check(&["digits.toml", "--no-data", DEMO]).expect("digits");
        assert!(parse::parse(&shown, "shown.toml", &[]).is_ok(), "{shown}");
        for part in ["# student   cnn: ", "# teacher   cnn: ", "# budget    size_kib: ", "can be met"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        for file in std::fs::read_dir(root.join("recipes")).expect("recipes/") {
            let name = file.expect("an entry").file_name().into_string().expect("a name");
            let budget = (name == "digits.toml").then_some(DEMO);
            let words: Vec<&str> = [&*name, "--no-data"].into_iter().chain(budget).collect();
            check(&words).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn figures_are_those_of_the_architecture() {
        let text = check(&["digits.toml", "--json", DEMO, "student={ arch = \"mlp\", hidden = [7] }"]).expect("digits");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let student = &json["networks"][0];
        assert_eq!((&json["schema"], &student["name"]), (&"kd.check/1".into(), &"student".into()));
        assert_eq!(student["parameters"], 64 * 7 + 7 + 7 * 10 + 10);
        assert_eq!(student["macs"], 64 * 7 + 7 * 10);
        let bytes = |key: &str| student[key].as_u64().expect(key);
        let weights = 64 * 7 + 7 * 10;
        assert!(bytes("float_bytes") > 4 * weights && bytes("int8_bytes") > weights);
        assert!(bytes("training_bytes") > 4 * 4 * (weights + 17), "weights, gradients and two moments");
        assert_eq!(json["data"]["counts"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["recipe"]["student"]["hidden"][0], 7);
    }

    #[test]
    fn what_cannot_be_is_refused_before_training() {
        #[rustfmt::skip]
        let cases: &[(&[&str], u8, &str)] = &[
            (&["digits.toml", "--no-data", TIGHT], 1, "tight.toml: expected a student with size_kib of at most 0.5, memory_mib of at most 0.001, found size_kib "),
            (&["digits.toml", "--no-data", DEMO, "student.widths=[64,64,64]"], 1, "demo.toml: expected a student with size_kib of at most 32, found size_kib "),
            (&["digits.toml", "--no-data", DEMO, "run.threads=1000"], 3, "run.threads: expected at most "),
            (&["digits.toml", "--no-data", DEMO, "train.batch=1048576", "student.widths=[512,8]"], 3, "student: memory: expected training that fits the "),
            (&["digits.toml", "--no-data", DEMO, "train.batch=1048576", "student.widths=[512,8]"], 3, "; lower the batch to "),
            (&["digits.toml", "--no-data", DEMO, "train.groups=[{ match = \"stag1*\" }]"], 2, "student: train.groups.0.match: expected the name of a parameter, found `stag1*`; "),
            (&["digits.toml", "--no-data", DEMO, "train.groups=[{ match = \"*\", frozen = true }]"], 2, "student: train.groups: expected a parameter that is trained, found none; "),
            (&["digits.toml", "--no-data", DEMO, "distill.terms.0.student=logitz"], 2, "distill.terms.0: expected a tap of the student, found `logitz`; did you mean `logits`?"),
            (&["digits.toml", "--no-data", DEMO, "distill.terms.0.teacher=zzz"], 2, "distill.terms.0: expected a tap of the teacher, found `zzz`; known are "),
            (&["digits.toml", "--no-data", DEMO, "data.augment=[{ kind = \"scaling\" }]"], 2, "data.augment `scaling`: "),
            (&["mnist-mlp.toml", "data.path=/nowhere"], 2, "/nowhere"),
            (&["digits.toml", DEMO, "data.exclude_classes=[\"ten\"]"], 2, "data.exclude_classes: "),
        ];
        for &(words, exit, expected) in cases {
            let error = check(words).expect_err(expected);
            assert!(error.to_string().contains(expected), "{words:?}:\n  expected {expected}\n  found    {error}");
            assert_eq!(error.exit as u8, exit, "{error}");
        }
    }
}
