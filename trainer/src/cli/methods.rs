//! `kd-train methods`: the table of methods, one of them in full, or `docs/methods.md`.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use kd_runtime::error::Exit;
use kd_runtime::report::json;
use kd_runtime::{Refusal, Result, files};
use serde::Serialize;

use super::args::{Methods, MethodsFormat};
use super::tables::{Row, rows};
use crate::losses::Method;
use crate::losses::table::METHODS;
use crate::recipe::parse::parse;
use crate::recipe::precheck::precheck;
use crate::recipe::suggest;
use crate::zoo::Site;

/// The methods as JSON; schema `kd.methods/2`.
#[derive(Serialize)]
struct Table {
    schema: &'static str,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    knowledge: &'static str,
    needs_teacher: bool,
    needs_labels: bool,
    needs_whole_batch: bool,
    source: &'static str,
    formula: String,
    options: Vec<Row>,
    /// A whole recipe, on data that every build has; none where no network there has what the method reads.
    recipe: Option<String>,
}

/// What `docs/methods.md` begins with.
const HEAD: &str = "\
# Methods

What a term of `[distill]` can be; made by `kd-train methods --format markdown`. Each loss is a mean over the batch unless
an option says otherwise; nothing flows into the teacher; teachers are in eval mode and never changed. Every term has a
`weight`, a `stage` and may have a `schedule` for its weight ([recipes.md](recipes.md)). A tap is the name of a value of the
network: `logits`, `features`, `stage1`, `stage1.pre` (before its activation); `stages` and `stages.pre` mean all stages,
paired from the deepest up, `middle` and `last` one of them. Several taps are written with commas between. Where samples are
mixed (mixup), `ce` and `bce` have both classes; other methods that read labels have that of the larger share. Methods that
need labels are refused where some samples have none (`data.labelled` below 1), those that need the whole batch where several
processes train together.

Where two taps differ in shape, a method of features adds a connector behind the student's, which is trained beside it and cut
off what is kept; maps, series and vectors meet by averaging the places that one has more of. A pair that cannot work is
refused before training.
";

/// Prints what was asked for.
pub fn run(args: &Methods, out: &mut dyn Write) -> Result<()> {
    let chosen: Vec<&Method> = match &args.name {
        None => METHODS.to_vec(),
        Some(name) => vec![find(name)?],
    };
    let text = match args.format {
        MethodsFormat::Json => {
            json::pretty(&Table { schema: "kd.methods/2", entries: chosen.into_iter().map(entry).collect() })
        }
        MethodsFormat::Markdown => markdown(&chosen, args.name.is_none()),
        MethodsFormat::Text if args.name.is_none() => summary(&chosen),
        MethodsFormat::Text => chosen.into_iter().map(in_full).collect(),
    };
    out.write_all(text.as_bytes()).map_err(|e| files::refuse_write(Path::new("standard output"), &e))
}

fn find(name: &str) -> Result<&'static Method> {
    METHODS.iter().copied().find(|method| method.name == name).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        let found = format!("`{}`", kd_runtime::error::Shown(name));
        Refusal::new("methods", "a method", found, suggest(name, &known))
    })
}

fn entry(method: &Method) -> Entry {
    Entry {
        name: method.name,
        about: method.about,
        knowledge: method.knowledge.words(),
        needs_teacher: method.needs_teacher(),
        needs_labels: method.needs_labels,
        needs_whole_batch: method.needs_whole_batch,
        source: method.source,
        formula: method.formula.to_string(),
        options: rows(method.options),
        recipe: recipe(method),
    }
}

/// What a method cannot do without.
fn needs(method: &Method) -> String {
    let words = [
        (method.needs_teacher(), "teacher"),
        (method.needs_labels, "labels"),
        (method.needs_whole_batch, "whole batch"),
    ];
    words.into_iter().filter(|(needed, _)| *needed).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}

/// A line a method.
fn summary(methods: &[&Method]) -> String {
    let mut out = String::new();
    let wide = methods.iter().map(|method| method.name.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{:wide$}  {:9}  {:28}  what it is, and whose", "method", "knowledge", "needs");
    for method in methods {
        let (knowledge, needs) = (method.knowledge.words(), needs(method));
        let _ = writeln!(out, "{:wide$}  {knowledge:9}  {needs:28}  {}", method.name, method.about);
    }
    out.push_str("\n`kd-train methods NAME` prints its formula, options and a recipe.\n");
    out
}

/// One method with all there is to know.
fn in_full(method: &Method) -> String {
    let mut out = String::new();
    let Entry { name, about, knowledge, source, formula, options, recipe, .. } = entry(method);
    let _ = writeln!(out, "{name}: {about}\n\n{formula}\n\nHands over: {knowledge}. Source: {source}.\n\nOptions:");
    for Row { name, about, values, default } in options {
        let _ = writeln!(out, "  {name} = {default}: {about}; {values}");
    }
    let _ = match recipe {
        Some(recipe) => write!(out, "\nA recipe:\n\n{recipe}"),
        None => {
            writeln!(out, "\nNo recipe: no architecture for the digits has what it reads; name taps of your networks.")
        }
    };
    out
}

fn markdown(methods: &[&Method], whole: bool) -> String {
    let mut out = if whole { HEAD.to_string() } else { String::new() };
    if whole {
        out.push_str("\n| method | hands over | needs | what it is |\n|---|---|---|---|\n");
        for method in methods {
            let (knowledge, needs, name) = (method.knowledge.words(), needs(method), method.name);
            let _ = writeln!(out, "| [`{name}`](#{name}) | {knowledge} | {needs} | {} |", method.about);
        }
    }
    for method in methods {
        let _ = write!(out, "\n## `{}`\n\n{}. {}\n\n", method.name, method.about, method.formula);
        let _ = writeln!(out, "Source: {}.\n", method.source);
        out.push_str("| option | what it does | what it may be | left out |\n|---|---|---|---|\n");
        for Row { name, about, values, default } in rows(method.options) {
            let _ = writeln!(out, "| `{name}` | {about} | {values} | `{default}` |");
        }
    }
    out
}

/// A recipe that hands knowledge over by a method alone, on the digits; `None` where it would be refused.
pub fn recipe(method: &Method) -> Option<String> {
    let text = recipe_text(method);
    let parsed = parse(&text, method.name, &[]).ok()?;
    match precheck(&parsed, &Site { input: vec![1, 8, 8], classes: 10 }, None, &[]) {
        // Too little memory or too few cores here say nothing of the recipe.
        Err(refusal) if refusal.exit != Exit::Lacking => None,
        _ => Some(text),
    }
}

fn recipe_text(method: &Method) -> String {
    let teacher =
        if method.needs_teacher() { "[teacher]\narch = \"cnn\"\nwidths = [16, 32]\nepochs = 10\n\n" } else { "" };
    format!(
        "[data]\nformat = \"digits\"\n\n{teacher}[student]\narch = \"cnn\"\nwidths = [8, 16]\n\n[train]\nepochs = 10\n\n\
         [distill]\nterms = [{{ method = \"{}\", weight = 1.0 }}]\n",
        method.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(name: Option<&str>, format: MethodsFormat) -> String {
        let mut out = Vec::new();
        run(&Methods { name: name.map(str::to_string), format }, &mut out).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_document_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("docs/methods.md");
        let found = std::fs::read_to_string(&path).expect("docs/methods.md");
        let now = printed(None, MethodsFormat::Markdown);
        let differs = found.lines().zip(now.lines()).position(|(a, b)| a != b);
        let make = "kd-train methods --format markdown > docs/methods.md";
        assert!(found == now, "docs/methods.md is not current from line {differs:?} on; make it by `{make}`");
    }

    #[test]
    fn every_method_is_shown_with_a_recipe_that_is_one() {
        let json: serde_json::Value = serde_json::from_str(&printed(None, MethodsFormat::Json)).expect("JSON");
        assert_eq!(json["entries"].as_array().map(Vec::len), Some(METHODS.len()));
        let summary = printed(None, MethodsFormat::Text);
        for method in METHODS {
            assert!(summary.contains(&format!("\n{} ", method.name)), "{}", method.name);
            let shown = printed(Some(method.name), MethodsFormat::Text);
            assert!(shown.contains(method.source) && !method.formula.is_empty(), "{shown}");
            for option in method.options {
                assert!(shown.contains(&format!("  {} = ", option.name)), "{}: {}", method.name, option.name);
            }
            let recipe = recipe(method);
            assert_eq!(recipe.is_some(), method.name != "tinybert_attention", "{}", method.name);
            assert!(recipe.is_none_or(|recipe| shown.ends_with(&recipe)), "{shown}");
        }
    }

    #[test]
    fn an_unknown_method_is_refused_with_the_nearest_name() {
        let args = Methods { name: Some("kdd".into()), format: MethodsFormat::Text };
        let message = run(&args, &mut Vec::new()).expect_err("refused").to_string();
        assert!(message.starts_with("methods: expected a method, found `kdd`; did you mean `kd`?"), "{message}");
    }
}
