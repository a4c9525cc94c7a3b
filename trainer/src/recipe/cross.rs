//! What sections must say together, as far as it shows without data.

use kd_runtime::data::FORMATS;
use kd_runtime::{Refusal, Result};

use super::{Recipe, Scheme, Stage, Term};
use crate::data::reading;
use crate::losses::{Method, byot, ps_kd, table as methods};

/// The augmentations that make one sample of two.
const MIXING: &[&str] = &["mixup"];

/// Refuses a recipe that contradicts itself; `locate` makes the begin of a message from a path.
pub fn check(recipe: &Recipe, locate: &dyn Fn(&str) -> String) -> Result<()> {
    let Recipe { data, teachers, train, distill, .. } = recipe;
    let row = FORMATS.iter().find(|row| row.name == data.format);
    match (row.is_some_and(|row| row.has_path), data.path.as_os_str().is_empty()) {
        (true, true) => {
            let expected = format!("a path: {}", row.map_or("", |row| row.about));
            return Err(Refusal::new(locate("data.path"), expected, "none", "set it"));
        }
        (false, false) => {
            let expected = format!("no path for the format `{}`", data.format);
            return Err(Refusal::new(
                locate("data.path"),
                expected,
                format!("`{}`", data.path.display()),
                "leave it out",
            ));
        }
        _ => {}
    }
    if let (Some(read), Some(row)) = (&data.read, row) {
        let reading = reading::build(read)?;
        if row.reading != Some(reading.kind()) {
            let fitting = reading::READINGS.iter().filter(|kind| Some(kind.kind) == row.reading);
            let names: Vec<&str> = fitting.map(|kind| kind.name).collect();
            let expected = match names[..] {
                [] => format!("none for the format `{}`", row.name),
                _ => format!("one of {} for the format `{}`", names.join(", "), row.name),
            };
            return Err(Refusal::new(locate("data.read"), expected, format!("`{}`", read.name), "correct it"));
        }
    }
    if train.patience.is_some() && data.validation == 0.0 {
        let expected = "data.validation above 0, which patience looks at";
        let action = "set data.validation = 0.1 or leave patience out";
        return Err(Refusal::new(locate("train.patience"), expected, "`0.0`", action));
    }
    let needs_labels = |term: &Term| methods::find(term.method.name).is_some_and(|method| method.needs_labels);
    if let Some(i) = distill.terms.iter().position(needs_labels).filter(|_| data.labelled < 1.0) {
        let expected = format!("data.labelled = 1, since `{}` needs every label", distill.terms[i].method.name);
        let action = "set it, or choose a method that does without";
        return Err(Refusal::new(locate(&format!("distill.terms.{i}")), expected, data.labelled, action));
    }
    let remembers = |term: &Term| term.method.name == ps_kd::METHOD.name;
    let mixes = data.augment.iter().any(|augment| MIXING.contains(&augment.name));
    if let Some(i) = distill.terms.iter().position(remembers).filter(|_| mixes) {
        let expected = "no augmentation that mixes samples: what it keeps of a mixture is no prediction of either";
        let action = "leave `mixup` out of data.augment, or choose another method";
        return Err(Refusal::new(locate(&format!("distill.terms.{i}")), expected, "`ps_kd` with one", action));
    }
    let holds_task = |term: &Term| {
        let is_byot = term.method.name == byot::METHOD.name;
        is_byot && term.method.options.text("form") == byot::SEED_LITERAL
    };
    if distill.task_weight > 0.0 && distill.terms.iter().any(holds_task) {
        let expected = "0.0, since form = \"seed_literal\" of `byot` holds the deepest cross-entropy";
        let action = "set task_weight = 0.0, or choose the form `paper`";
        return Err(Refusal::new(locate("distill.task_weight"), expected, distill.task_weight, action));
    }
    let teacher_term = distill.terms.iter().position(needs_teacher);
    let codistills = matches!(distill.scheme, Scheme::Codistill(_));
    if codistills {
        check_codistill(recipe, teacher_term.is_some(), locate)?;
    }
    let teaches = !teachers.is_empty() || !distill.assistants.is_empty();
    match (!teaches && !codistills, teacher_term) {
        (true, Some(i)) => {
            let expected = format!("a [teacher] for the method `{}`", distill.terms[i].method.name);
            let action = "add a [teacher] or remove the term";
            return Err(Refusal::new(locate(&format!("distill.terms.{i}")), expected, "none", action));
        }
        (false, None) if !codistills => {
            let expected = "a term in distill.terms that learns from the teacher";
            let action = "add terms = [{ method = \"kd\" }] to [distill] or remove the teacher";
            let who = if teachers.is_empty() { "distill.assistants" } else { "teacher" };
            return Err(Refusal::new(locate(who), expected, "none", action));
        }
        _ => {}
    }
    let only_init = distill.terms.iter().position(|term| term.stage == Stage::Init);
    match (distill.init_epochs, only_init) {
        (0, Some(i)) => {
            let expected = "distill.init_epochs above 0, the epochs of the stage `init`";
            let action = "set it, or give the term the stage `main`";
            return Err(Refusal::new(locate(&format!("distill.terms.{i}.stage")), expected, "`0`", action));
        }
        (1.., None) if distill.terms.iter().all(|term| term.stage == Stage::Main) => {
            let expected = "a term whose stage is `init`";
            let action = "give one the stage, or leave init_epochs out";
            return Err(Refusal::new(locate("distill.init_epochs"), expected, "none", action));
        }
        _ => {}
    }
    let ends_alone = |term: &Term| term.weight == 0.0 || term.stage == Stage::Init;
    if distill.task_weight == 0.0 && distill.terms.iter().all(ends_alone) {
        let expected = "a weight above 0 for the task or for a term of the main stage";
        return Err(Refusal::new(locate("distill.task_weight"), expected, "none", "set one above 0"));
    }
    Ok(())
}

/// Refuses what several processes that have parts of each batch cannot do.
pub fn check_parts(recipe: &Recipe, processes: usize) -> Result<()> {
    let many = format!("since {processes} processes (WORLD_SIZE) have parts of each batch");
    if let Scheme::Codistill(_) = recipe.distill.scheme {
        let action = "unset WORLD_SIZE: replicas in processes are --replica and --exchange";
        return Err(Refusal::new("distill.scheme", format!("`offline`, {many}"), "`codistill`", action));
    }
    // Exits learn from labels, which some samples lack, and from answers, which all have; two forms are one sum or root over
    // the batch: what a part of it gives is no share of the whole.
    let exits = |term: &Term| {
        let is_of_batch = || matches!(term.method.options.text("form"), "journal" | "masked");
        term.method.name == byot::METHOD.name && (recipe.data.labelled < 1.0 || is_of_batch())
    };
    let method = |term: &Term| methods::find(term.method.name).is_some_and(|method| method.needs_whole_batch);
    let whole = |term: &Term| method(term) || exits(term);
    let Some(i) = recipe.distill.terms.iter().position(whole) else { return Ok(()) };
    let expected = format!("a method that sees each sample by itself, {many}");
    let found = format!("`{}`", recipe.distill.terms[i].method.name);
    let action = "choose another method, or unset WORLD_SIZE";
    Err(Refusal::new(format!("distill.terms.{i}"), expected, found, action))
}

/// Refuses what replicas that teach each other cannot do.
fn check_codistill(recipe: &Recipe, listens: bool, locate: &dyn Fn(&str) -> String) -> Result<()> {
    if !recipe.teachers.is_empty() {
        let action = "leave [teacher] out, or set scheme = \"offline\"";
        return Err(Refusal::new(locate("teacher"), "none: replicas teach each other", "a teacher", action));
    }
    if !recipe.distill.assistants.is_empty() {
        let action = "leave them out, or set scheme = \"offline\"";
        return Err(Refusal::new(locate("distill.assistants"), "none: replicas teach each other", "some", action));
    }
    if !listens {
        let action = "add terms = [{ method = \"codistill\" }] to [distill]";
        return Err(Refusal::new(locate("distill.terms"), "a term that learns from the others", "none", action));
    }
    if recipe.train.patience.is_some() {
        let action = "leave it out: replicas end together";
        return Err(Refusal::new(locate("train.patience"), "none with scheme = \"codistill\"", "a number", action));
    }
    if recipe.distill.init_epochs > 0 {
        let action = "leave it out, and set burn_in_steps";
        return Err(Refusal::new(locate("distill.init_epochs"), "0 with scheme = \"codistill\"", "more", action));
    }
    Ok(())
}

/// Whether a term reads values of a teacher.
pub fn needs_teacher(term: &Term) -> bool {
    methods::find(term.method.name).is_some_and(Method::needs_teacher)
}

#[cfg(test)]
mod tests {
    use super::MIXING;
    use crate::data::augment::table::AUGMENTATIONS;
    use crate::options::Options;
    use crate::recipe::parse::parse;

    fn answer(data: &str, distill: &str) -> String {
        let text = format!(
            "[data]\nformat = \"digits\"\n{data}[teacher]\narch = \"cnn\"\n[student]\narch = \"cnn\"\n[distill]\n{distill}\n"
        );
        parse(&text, "r.toml", &[]).map_or_else(|e| e.to_string(), |_| "accepted".into())
    }

    #[test]
    fn a_term_of_the_first_stage_needs_epochs_wherever_it_stands() {
        let (both, init) = ("{ method = \"kd\", stage = \"both\" }", "{ method = \"fitnets\", stage = \"init\" }");
        for (terms, place) in [([both, init], 1), ([init, both], 0)] {
            let terms = format!("terms = [{}]", terms.join(", "));
            let expected = format!(
                "distill.terms.{place}.stage: expected distill.init_epochs above 0, the epochs of the stage `init`"
            );
            let found = answer("", &terms);
            assert!(found.contains(&expected), "{found}");
            assert_eq!(answer("", &format!("init_epochs = 2\n{terms}")), "accepted");
        }
        assert_eq!(answer("", &format!("terms = [{both}]")), "accepted");
        assert_eq!(answer("", &format!("init_epochs = 2\nterms = [{both}]")), "accepted");
        let found = answer("", "init_epochs = 2\nterms = [{ method = \"kd\" }]");
        assert!(found.contains("distill.init_epochs: expected a term whose stage is `init`"), "{found}");
    }

    #[test]
    fn predictions_of_mixtures_are_not_kept_for_samples() {
        let mixup = "augment = [{ kind = \"translate\" }, { kind = \"mixup\" }]\n";
        let terms = "task_weight = 0.0\nterms = [{ method = \"kd\" }, { method = \"ps_kd\" }]";
        let found = answer(mixup, terms);
        let expected = "distill.terms.1: expected no augmentation that mixes samples: what it keeps of a mixture is no \
                        prediction of either, found `ps_kd` with one; leave `mixup` out of data.augment, or choose another method";
        assert!(found.ends_with(expected), "{found}");
        assert_eq!(answer("augment = [{ kind = \"translate\" }]\n", terms), "accepted");
        assert_eq!(answer(mixup, "terms = [{ method = \"kd\" }]"), "accepted");
    }

    #[test]
    fn every_augmentation_that_mixes_is_known() {
        for kind in AUGMENTATIONS {
            let made = [&[3, 32, 32][..], &[2, 64]]
                .into_iter()
                .find_map(|shape| (kind.build)(&Options::defaults(kind.options), shape).ok());
            let mixes = made.expect("images or series").mixes();
            assert_eq!(mixes, MIXING.contains(&kind.name), "{}", kind.name);
        }
    }
}
