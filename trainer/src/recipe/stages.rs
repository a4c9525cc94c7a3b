//! Terms that come before the training proper: what the option `stage2` of their method makes of the rest of the loss.

use kd_runtime::{Refusal, Result};

use super::{Choice, Distill, Scheme, Stage, Term};
use crate::losses::kd;
use crate::losses::table::METHODS;
use crate::options::{Options, Setting};

/// The option of a method that comes first.
pub const STAGE2: &str = "stage2";

/// What the words of [`STAGE2`] mean: the task and `kd`, `kd` alone as AB_distillation has it, the task alone, no stage of its
/// own.
pub const WORDS: &[&str] = &["ce_kd", "kd_only", "ce", "joint"];

/// What a recipe says of stages and weights, beside its terms.
pub struct Given<'a> {
    /// Of each term whether it has a `stage`.
    pub stages: &'a [bool],
    /// Whether it sets `task_weight`.
    pub task_weight: bool,
    /// Whether it sets `init_epochs`.
    pub init_epochs: bool,
    /// Epochs of `[train]`.
    pub epochs: usize,
}

/// Gives terms that come first, and have no stage of their own, the stage `init` and what follows it. What results says all of
/// it: it has no `stage2`. `place` makes the begin of a message from a key of a term.
pub fn expand(distill: &mut Distill, given: &Given<'_>, place: &dyn Fn(usize, &str) -> String) -> Result<()> {
    let listed = distill.terms.len();
    let codistills = matches!(distill.scheme, Scheme::Codistill(_));
    for (i, &has_stage) in given.stages.iter().enumerate() {
        let method = &mut distill.terms[i].method;
        let row = METHODS.iter().find(|row| row.name == method.name);
        if !row.is_some_and(|row| row.options.iter().any(|spec| spec.name == STAGE2)) {
            continue;
        }
        let word = method.options.optional(STAGE2, Options::text).map(str::to_string);
        method.options.0.remove(STAGE2);
        let refused = |expected: &str, action: &str| {
            let found = format!("`{}`", word.as_deref().unwrap_or_default());
            Err(Refusal::new(place(i, STAGE2), expected, found, action))
        };
        match &word {
            Some(_) if has_stage => return refused("no `stage` beside it", "leave one of both out"),
            Some(word) if codistills && word != "joint" => {
                return refused("`joint` with scheme = \"codistill\"", "leave it out");
            }
            _ if has_stage => continue,
            _ => {}
        }
        let left_out = if codistills {
            "joint"
        } else if listed > 1 {
            "ce"
        } else {
            "ce_kd"
        };
        let word = word.as_deref().unwrap_or(left_out);
        if word == "joint" {
            continue;
        }
        distill.terms[i].stage = Stage::Init;
        if !given.init_epochs {
            distill.init_epochs = given.epochs.div_ceil(8).max(1);
        }
        let kd = |options: Options| {
            let method = Choice { name: kd::METHOD.name, options };
            Term { method, weight: 1.0, stage: Stage::Main, schedule: None }
        };
        match word {
            "ce_kd" => distill.terms.push(kd(Options::defaults(kd::OPTIONS))),
            "kd_only" => {
                if given.task_weight && distill.task_weight > 0.0 {
                    return refused("`task_weight = 0.0` with it", "set that, leave it out, or choose `ce_kd`");
                }
                distill.task_weight = 0.0;
                let options = Options::defaults(kd::OPTIONS).with("temperature", Setting::Number(3.0));
                distill.terms.push(kd(options.with("tau2", Setting::Flag(false))));
            }
            _ => {}
        }
    }
    Ok(())
}
