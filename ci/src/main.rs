//! `cargo xtask COMMAND`: the project's own commands. They run programs and read files; no crate of ours is linked.

mod ci;
mod cross;
mod cuda;
mod data;
mod demo;
mod documents;
mod golden;
mod licences;
mod metrics;
mod peers;
mod recipes;
mod setup;
mod shell;
mod sources;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

/// A command.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

/// Why a command ended: a verdict that was already printed, or one line to print.
pub enum Failure {
    /// The exit code of a program that has said why.
    Exit(u8),
    /// One line.
    Line(String),
}

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self::Line(line)
    }
}

static COMMANDS: &[Command] = &[
    Command { name: "ci", about: "every check and test; --no-install lists what is missing and stops", run: ci::run },
    Command { name: "demo", about: "train, distil, export and measure on the digits; --budget FILE", run: demo::run },
    Command { name: "tidy", about: "house rules: dependencies, file sizes, unsafe, docs", run: tidy::run },
    Command { name: "metrics", about: "size of the source and of the dependency tree", run: metrics::run },
    Command {
        name: "golden",
        about: "trainer and engine against values of other software in ../shared/golden; KD_GOLDEN: of the engine",
        run: golden::run,
    },
    Command {
        name: "conformance",
        about: "the engine against ONNX's node tests; KD_NODE_TESTS",
        run: golden::conformance,
    },
    Command { name: "peers", about: "a Python with the pinned software that we are compared with", run: peers::run },
    Command {
        name: "compare",
        about: "with PyTorch, in turns: training (steps), curve (losses), recipe (whole runs); KD_PEERS_PYTHON",
        run: peers::compare,
    },
    Command {
        name: "study",
        about: "ucr: one student on every UCR set, taught in several ways, KD_UCR; hinton: the first paper's, KD_MNIST",
        run: peers::study,
    },
    Command { name: "recipes", about: "every example recipe for one epoch; KD_DATA", run: recipes::run },
    Command { name: "data", about: "cifar10: tiled sheets to the layout that `cifar:` reads", run: data::run },
    Command { name: "cuda-check", about: "every GPU kernel, compiled for every architecture", run: cuda::check },
    Command {
        name: "cuda-bundle",
        about: "kd-train for machines with an NVIDIA GPU, in one folder",
        run: cuda::bundle,
    },
    Command { name: "cross", about: "kd-bench for the devices; the demo's student on emulated ones", run: cross::run },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let named = args.first().and_then(|name| COMMANDS.iter().find(|command| command.name == name));
    let Some(command) = named else {
        let found = args.first().map_or("no command".to_string(), |name| format!("`{name}`"));
        let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
        let list: Vec<String> = COMMANDS.iter().map(|c| format!("  {:width$}  {}", c.name, c.about)).collect();
        eprintln!("error: xtask: expected a command, found {found}; choose one:\n{}", list.join("\n"));
        return ExitCode::from(2);
    };
    let moved = shell::enter(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).map_err(Failure::Line);
    match moved.and_then(|()| (command.run)(&args[1..])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Exit(code)) => ExitCode::from(code),
        Err(Failure::Line(line)) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}
