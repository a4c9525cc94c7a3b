//! The arguments; doc comments are the help.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use kd_runtime::data::sources;

use crate::recipe::keys::PRECISIONS;

/// Train a teacher, distil a student from it, and compare it with the same student trained alone
#[derive(Debug, Parser)]
#[command(
    name = "kd-train",
    version,
    max_term_width = 100,
    after_help = "\
Exit status: 0 done, 1 a teacher is below must_reach (or guesses), the budget cannot be met or a loss is not finite,
             2 refused, 3 this machine lacks something or another process of the training is lost,
             130 or 143 stopped by SIGINT or SIGTERM with its state saved.
Example:     kd-train run recipes/digits.toml --output runs/digits"
)]
pub struct Args {
    /// What it does.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Whether results and errors are JSON.
    pub fn json(&self) -> bool {
        let format = match &self.command {
            Command::Run(run) => run.format,
            Command::Check(check) => check.format,
            Command::Eval(eval) => eval.format,
            Command::Selftest(selftest) => selftest.format,
            Command::Archs(list) => list.format,
            Command::Methods(methods) => return methods.format == MethodsFormat::Json,
        };
        format == Format::Json
    }
}

/// What `kd-train` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do what a recipe says: teachers, students, baselines, and a run folder with all of it
    Run(Run),
    /// Print the complete recipe, sizes, memory and whether the budget can be met, without training
    Check(Check),
    /// Measure the accuracy of a float model on the test part of a data set
    Eval(Eval),
    /// Compare a device with this machine: every operator, and short training runs
    Selftest(Selftest),
    /// List the architectures with their options
    Archs(List),
    /// List the distillation methods, or show one with its formula, options and a recipe
    Methods(Methods),
}

/// A run.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
A run that was stopped or killed goes on with --resume; on the CPU the result is bit for bit the same.
Several processes with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them, train
together, each with a part of every batch; rank 0 writes the run folder.
Example:     kd-train run recipes/digits.toml train.epochs=20 --output runs/digits")]
pub struct Run {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Keys to replace: train.epochs=20, distill.terms.0.temperature=2
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// The run folder, created; default: runs/NAME with the recipe's run.name
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Go on where a run into the same folder was stopped, with the same recipe
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace a run folder that exists
    #[arg(long)]
    pub force: bool,
    /// Train only replica N of the recipe's OF replicas; start the others in processes of their own
    #[arg(long, value_name = "N/OF", value_parser = replica, requires = "exchange")]
    pub replica: Option<(usize, usize)>,
    /// Where the replicas leave checkpoints for each other: a folder that all see, or a bucket
    #[arg(long, value_name = "DIR_OR_URL", requires = "replica")]
    pub exchange: Option<String>,
    /// Where to compute; default: the recipe's run.device
    #[arg(long, value_name = "cpu|cuda:N")]
    pub device: Option<String>,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// A check of a recipe.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:     kd-train check recipes/digits.toml student.widths=[8,16]")]
pub struct Check {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Keys to replace: train.epochs=20, distill.terms.0.temperature=2
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Check the recipe alone: open neither data nor teachers
    #[arg(long)]
    pub no_data: bool,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// An evaluation.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Integer models are measured by kd-bench.
Example:     kd-train eval runs/digits --data digits")]
pub struct Eval {
    /// .onnx file, export folder or run folder (its student)
    #[arg(value_name = "MODEL_OR_RUN")]
    pub model: PathBuf,
    /// The data
    #[arg(long, value_name = "FORMAT:PATH", help = format!("The data: {}", sources()))]
    pub data: String,
    /// What goes in and comes out; default: contract.json beside the model
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// A test of a device.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Values and gradients of every operator are compared with this machine's in f64; training, with its f32.
Exit status: 0 all within their bounds, 1 some are not, 3 there is no such device here.
Example:     kd-train selftest --device cuda:0")]
pub struct Selftest {
    /// The device
    #[arg(long, value_name = "cpu|cuda:N", default_value = "cpu")]
    pub device: String,
    /// How exactly a GPU multiplies
    #[arg(long, value_name = "f32|tf32", default_value = "f32", value_parser = PossibleValuesParser::new(PRECISIONS), hide_possible_values = true)]
    pub precision: String,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// A list of what there is.
#[derive(Debug, ClapArgs)]
pub struct List {
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// The methods, or one.
#[derive(Debug, ClapArgs)]
pub struct Methods {
    /// Show this one in full
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// How they are written; `markdown` is docs/methods.md
    #[arg(long, value_name = "text|json|markdown", default_value = "text", hide_possible_values = true)]
    pub format: MethodsFormat,
}

/// How methods are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodsFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// As a document.
    Markdown,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `2/3`: the second of three.
fn replica(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?)));
    numbers.filter(|(n, of)| (1..=*of).contains(n)).ok_or_else(|| "N/OF with N from 1 to OF, such as 2/3".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use kd_runtime::data::FORMATS;

    use super::*;

    #[test]
    fn the_help_of_eval_names_every_format() {
        let help = Args::command().find_subcommand_mut("eval").expect("eval").render_help().to_string();
        for row in FORMATS {
            assert!(
                help.contains(&if row.has_path { format!("{}:PATH", row.name) } else { row.name.into() }),
                "{help}"
            );
        }
    }
}
