//! What the runs of a study were made of: runs of other data, or of a teacher that is no more, are not taken for its own.

use std::collections::BTreeMap;
use std::path::Path;

use kd_runtime::{Refusal, Result, files};
use serde_json::{Value, json};

/// What a finished run was made of, as its `evidence.json` has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MadeOf {
    /// The `kd-train` that ended it: name, version, and the revision where its build was told one.
    pub program: Value,
    /// SHA-256 of its data.
    pub data_sha256: String,
    /// SHA-256 of the model of each of its teachers.
    pub teacher_sha256: Vec<String>,
}

impl MadeOf {
    /// Reads the evidence of a finished run.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join("evidence.json");
        let refuse = |found: &dyn std::fmt::Display| {
            Refusal::new(path.display(), "the evidence of a finished run", found, remove(run))
        };
        let evidence: Value = serde_json::from_str(&files::read_text(&path)?).map_err(|e| refuse(&e))?;
        let sha256 = |of: &Value| of["sha256"].as_str().map(str::to_string).ok_or_else(|| refuse(&"no sha256"));
        let teachers = evidence["teachers"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(Self {
            program: evidence["program"].clone(),
            data_sha256: sha256(&evidence["data"])?,
            teacher_sha256: teachers.iter().map(sha256).collect::<Result<_>>()?,
        })
    }

    /// Refuses a run of other data than those of this SHA-256, and one whose teacher was another than the student of the run
    /// `teacher` is now.
    pub fn check(&self, run: &Path, data_sha256: &str, teacher: Option<&Path>) -> Result<()> {
        let refuse = |expected: String, found: &str| {
            Err(Refusal::new(run.display(), expected, format!("one made with sha256 {found}"), remove(run)))
        };
        if self.data_sha256 != data_sha256 {
            return refuse(format!("a run of the data as they are, sha256 {data_sha256}"), &self.data_sha256);
        }
        let Some(teacher) = teacher else { return Ok(()) };
        let model = teacher.join("student/model.onnx");
        let sha256 = files::sha256(&files::read(&model)?);
        if self.teacher_sha256 != [sha256.as_str()] {
            let expected = format!("a run taught by {}, sha256 {sha256}", model.display());
            return refuse(expected, &self.teacher_sha256.join(", "));
        }
        Ok(())
    }

    /// For the raw results.
    pub fn to_json(&self) -> Value {
        json!({ "program": self.program, "data_sha256": self.data_sha256, "teacher_sha256": self.teacher_sha256 })
    }

    /// The program in words.
    fn program(&self) -> String {
        let text = |key: &str, none: &str| self.program[key].as_str().unwrap_or(none).to_string();
        format!("{} {}, revision {}", text("name", "kd-train"), text("version", "unknown"), text("revision", "unknown"))
    }
}

/// A sentence for the report, where the runs are of several programs.
pub fn several_programs<'a>(runs: impl IntoIterator<Item = &'a MadeOf>) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs {
        *counts.entry(run.program()).or_default() += 1;
    }
    let named: Vec<String> = counts.iter().map(|(program, n)| format!("{program} ({n} of them)")).collect();
    (named.len() > 1).then(|| format!("The runs are of several programs: {}.", named.join("; ")))
}

fn remove(run: &Path) -> String {
    format!("remove the folder {} and start the study again", run.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(revision: Value) -> MadeOf {
        let program = json!({ "name": "kd-train", "version": "0.1.0", "revision": revision });
        MadeOf { program, ..MadeOf::default() }
    }

    #[test]
    fn programs_are_named_where_they_are_several() {
        let [old, new, untold] = [of("a1".into()), of("b2".into()), of(Value::Null)];
        assert_eq!(several_programs([&new, &new]), None);
        assert_eq!(several_programs([]), None);
        let line = several_programs([&new, &old, &new, &untold]).unwrap();
        let expected = "The runs are of several programs: kd-train 0.1.0, revision a1 (1 of them); kd-train 0.1.0, revision b2 (2 \
                        of them); kd-train 0.1.0, revision unknown (1 of them).";
        assert_eq!(line, expected);
    }
}
