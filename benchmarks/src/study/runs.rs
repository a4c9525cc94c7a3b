//! Runs of `kd-train` as children of a study.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::Value;

/// Writes a recipe beside the folder `output` (as `OUTPUT.toml`), has `program` run it to its end on so many threads, or go
/// on where it was stopped, and gives its `results.json`. `what` names the run in a refusal, which carries the last line
/// that the program said; refused input keeps its exit status, everything else is [`Exit::Lacking`].
///
/// The wall seconds of the start that finished the run stay in `OUTPUT.seconds`.
pub fn finish(program: &str, what: &str, recipe: &str, output: &Path, threads: usize) -> Result<Value> {
    let (file, results) = (beside(output, "toml"), output.join("results.json"));
    let parent = output.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| files::refuse_write(parent, &e))?;
    files::write_atomic(&file, recipe.as_bytes())?;
    let (begin, was_finished) = (Instant::now(), results.exists());
    let mut command = Command::new(program);
    command.arg("run").arg(&file).arg(format!("run.threads={threads}")).arg("--resume");
    command.arg("--output").arg(output).stdout(Stdio::null()).stderr(Stdio::piped());
    let done = command.output().map_err(|e| lacking(program, &e))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let line = match said.lines().last() {
            Some(line) => line.trim_start_matches("error: ").to_string(),
            None => format!("no message, {}", done.status),
        };
        let refusal = Refusal::new(what, "a run to its end", line, "see its folder");
        let refused = done.status.code() == Some(Exit::Refused as i32);
        return Err(refusal.with_exit(if refused { Exit::Refused } else { Exit::Lacking }));
    }
    if !was_finished {
        files::write_atomic(&beside(output, "seconds"), format!("{:.1}\n", begin.elapsed().as_secs_f64()).as_bytes())?;
    }
    serde_json::from_str(&files::read_text(&results)?).map_err(|e| lacking(&results.display().to_string(), &e))
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
    use super::*;

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

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = std::env::temp_dir().join(format!("kd-study-{}", std::process::id()));
        let refusal = finish("/no/kd-train", "a run", "", &folder.join("v1.5"), 1).err();
        assert!(folder.join("v1.5.toml").is_file(), "a dot in the name is no extension");
        std::fs::remove_dir_all(&folder).unwrap();
        let refusal = refusal.map(|refusal| (refusal.exit, refusal.to_string()));
        assert!(refusal.is_some_and(|(exit, line)| exit == Exit::Lacking && line.starts_with("/no/kd-train: ")));
    }
}
