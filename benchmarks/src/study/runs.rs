//! Runs of `kd-train` as children of a study.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::Value;

use super::made_of::MadeOf;

/// A run that a study wants.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Its name in a refusal.
    pub what: &'a str,
    /// Its recipe in TOML.
    pub recipe: &'a str,
    /// Its folder.
    pub output: &'a Path,
    /// Threads that it takes.
    pub threads: usize,
    /// SHA-256 of the data that it is to be of.
    pub data_sha256: &'a str,
    /// The run whose student teaches it, if one does.
    pub teacher: Option<&'a Path>,
}

/// A run that was done to its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its `results.json`.
    pub results: Value,
    /// What it was made of.
    pub made_of: MadeOf,
}

/// Writes the recipe of a run beside its folder (as `OUTPUT.toml`) and has `program` do it to its end, or go on where it was
/// stopped. A run that was finished before is taken if it is of the same recipe, data and teacher. A refusal carries the last
/// line that the program said; refused input keeps its exit status, everything else is [`Exit::Lacking`].
///
/// The wall seconds of the start that finished the run stay in `OUTPUT.seconds`.
pub fn finish(program: &str, job: Job<'_>) -> Result<Done> {
    let Job { output, .. } = job;
    let (file, results) = (beside(output, "toml"), output.join("results.json"));
    let parent = output.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| files::refuse_write(parent, &e))?;
    files::write_atomic(&file, job.recipe.as_bytes())?;
    let (begin, was_finished) = (Instant::now(), results.exists());
    let mut command = Command::new(program);
    command.arg("run").arg(&file).arg(format!("run.threads={}", job.threads)).arg("--resume");
    command.arg("--output").arg(output).stdout(Stdio::null()).stderr(Stdio::piped());
    let done = command.output().map_err(|e| lacking(program, &e))?;
    if !done.status.success() {
        return Err(failed(job, &done));
    }
    if !was_finished {
        files::write_atomic(&beside(output, "seconds"), format!("{:.1}\n", begin.elapsed().as_secs_f64()).as_bytes())?;
    }
    let made_of = MadeOf::read(output)?;
    made_of.check(output, job.data_sha256, job.teacher)?;
    let results =
        serde_json::from_str(&files::read_text(&results)?).map_err(|e| lacking(&results.display().to_string(), &e))?;
    Ok(Done { results, made_of })
}

/// The refusal for a run that did not end well.
fn failed(job: Job<'_>, done: &Output) -> Refusal {
    let said = String::from_utf8_lossy(&done.stderr);
    let line = match said.lines().last() {
        Some(line) => line.trim_start_matches("error: ").to_string(),
        None => format!("no message, {}", done.status),
    };
    // A study has no --force and no --output of a run.
    let line = line.split_once("; bring the recipe back").map_or(&*line, |(before, _)| before);
    let action = format!("see {}; a study of other settings or data takes --runs DIR of its own", job.output.display());
    let refused = done.status.code() == Some(Exit::Refused as i32);
    let exit = if refused { Exit::Refused } else { Exit::Lacking };
    Refusal::new(job.what, "a run to its end", line, action).with_exit(exit)
}

/// Wall seconds of the start that finished a run; `None` where nobody noted them.
pub fn seconds(output: &Path) -> Option<f64> {
    files::read_text(&beside(output, "seconds")).ok()?.trim().parse().ok()
}

/// `OUTPUT.EXTENSION`, whatever dots the name has.
fn beside(output: &Path, extension: &str) -> std::path::PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn lacking(what: &str, found: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(what, "a run to its end", found, "build the programs first").with_exit(Exit::Lacking)
}

/// Does all tasks, `jobs` at a time, and gives what they gave in the order of the tasks. A task that fails stops no other;
/// the first failure in that order is returned.
pub fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    tasks: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(tasks.len()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(place) else { break };
                    let result = work(task);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use serde_json::json;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn tasks_give_their_results_in_their_order_and_the_first_failure() {
        let tasks: Vec<usize> = (0..20).collect();
        assert_eq!(in_parallel(3, &tasks, |task| Ok(task * 2)).unwrap(), (0..40).step_by(2).collect::<Vec<_>>());
        let odd = |task: &usize| match task % 7 {
            5 => Err(Refusal::new(task, "an even one", "an odd one", "skip it")),
            _ => Ok(()),
        };
        let failed = in_parallel(4, &tasks, odd).err().map(|refusal| refusal.at);
        assert_eq!(failed.as_deref(), Some("5"));
        assert!(in_parallel(2, &[] as &[usize], odd).unwrap().is_empty());
    }

    fn job<'a>(output: &'a Path, teacher: Option<&'a Path>) -> Job<'a> {
        Job { what: "a run", recipe: "", output, threads: 1, data_sha256: "d", teacher }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let scratch = Scratch::new("study").unwrap();
        let output = scratch.path().join("v1.5");
        let refusal = finish("/no/kd-train", job(&output, None)).err();
        assert!(scratch.path().join("v1.5.toml").is_file(), "a dot in the name is no extension");
        let refusal = refusal.map(|refusal| (refusal.exit, refusal.to_string()));
        assert!(refusal.is_some_and(|(exit, line)| exit == Exit::Lacking && line.starts_with("/no/kd-train: ")));
    }

    /// `true` and `grep` stand for a kd-train that finds a finished run, and for one that refuses its command line.
    #[test]
    fn a_finished_run_of_other_data_or_of_another_teacher_is_refused_with_its_folder() {
        let scratch = Scratch::new("made-of").unwrap();
        let [run, teacher] = ["kd", "teacher"].map(|name| scratch.path().join(name));
        std::fs::create_dir_all(teacher.join("student")).unwrap();
        std::fs::create_dir(&run).unwrap();
        let evidence = |data: &str, teacher: &[u8]| {
            let text = json!({ "program": { "version": "1" }, "data": { "sha256": data },
                "teachers": [{ "sha256": files::sha256(teacher) }] });
            std::fs::write(run.join("evidence.json"), text.to_string()).unwrap();
        };
        std::fs::write(run.join("results.json"), "{}").unwrap();
        std::fs::write(teacher.join("student/model.onnx"), "new").unwrap();
        let line = || match finish("true", job(&run, Some(&teacher))) {
            Ok(done) => format!("done by {}", done.made_of.program),
            Err(refusal) => refusal.to_string(),
        };
        let action = format!("remove the folder {} and start the study again", run.display());
        evidence("d", b"new");
        assert_eq!(line(), "done by {\"version\":\"1\"}");
        evidence("d", b"old");
        let said = line();
        assert!(said.contains(&files::sha256(b"old")) && said.ends_with(&action), "{said}");
        evidence("other", b"new");
        let said = line();
        assert!(said.contains("sha256 other") && said.ends_with(&action), "{said}");
    }

    #[test]
    fn what_is_refused_says_how_a_study_goes_on() {
        let scratch = Scratch::new("refused-run").unwrap();
        let refusal = finish("grep", job(&scratch.path().join("kd"), None)).err().map(|refusal| refusal.exit);
        assert_eq!(refusal, Some(Exit::Refused));
        let stderr =
            b"note\nerror: x: expected 2, found 3; bring the recipe back, or begin anew with --force\n".to_vec();
        let done = Output { status: ExitStatus::default(), stdout: Vec::new(), stderr };
        let line = failed(job(Path::new("runs/kd"), None), &done).to_string();
        assert!(
            line.starts_with("a run: expected a run to its end, found x: expected 2, found 3; see runs/kd;"),
            "{line}"
        );
    }
}
