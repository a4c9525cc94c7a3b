//! The recipes that `kd-train methods` prints: each runs as it is printed.

mod support;

use std::fs;

use serde_json::Value;
use support::{Scratch, kd_train, line, run, stdout};

/// Every one of them, for an epoch of few samples.
#[test]
fn every_recipe_that_is_printed_runs() {
    let scratch = Scratch::new("methods");
    let printed = stdout(&kd_train(&["methods", "--format", "json"]));
    let table: Value = serde_json::from_str(&printed).unwrap();
    let rows = ["entries", "schemes"].map(|key| table[key].as_array().unwrap());
    assert!(rows[0].len() >= 38 && rows[1].len() >= 6);
    for row in rows.into_iter().flatten() {
        let (name, text) = (row["name"].as_str().unwrap(), row["recipe"].as_str().unwrap());
        let recipe = scratch.recipe(text);
        let mut short =
            vec!["--force", "run.threads=1", "data.subset=0.06", "train.epochs=1", "compare.baseline=false"];
        let several = text.contains("[[teacher]]").then_some(["teacher.0.epochs=1", "teacher.1.epochs=1"]);
        short.extend(several.into_iter().flatten());
        short.extend(text.contains("[teacher]\n").then_some("teacher.epochs=1"));
        short.extend(text.contains("init_epochs").then_some("distill.init_epochs=1"));
        let output = scratch.path("run");
        let done = run(&recipe, &output, &short);
        assert_eq!(done.status.code(), Some(0), "{name}: {}\n{text}", line(&done));
        assert!(output.join("report.html").exists(), "{name}");
        // What is shown is what teaches: the method's own term, or the scheme's, is one of those that were computed.
        let metrics = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
        let terms: Vec<&str> = text.split("method = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for term in terms {
            assert!(metrics.contains(&format!("\"{term}\":")), "{name}: {metrics}");
        }
    }
}
