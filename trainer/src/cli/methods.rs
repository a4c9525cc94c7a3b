//! `kd-train methods`: the table of methods, one of them in full, or `docs/methods.md`.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use kd_runtime::report::json;
use kd_runtime::{Refusal, Result, files};
use serde::Serialize;

use super::args::{Methods, MethodsFormat};
use super::tables::{Row, rows};
use crate::losses::table::METHODS;
use crate::losses::{Knowledge, Method, Weight};
use crate::options::Range;
use crate::recipe::suggest;
use crate::schemes::table::{Row as Scheme, SCHEMES, TEACHER};

/// The methods and schemes as JSON; schema `kd.methods/3`.
#[derive(Serialize)]
struct Table {
    schema: &'static str,
    entries: Vec<Entry>,
    schemes: Vec<Way>,
}

/// A scheme.
#[derive(Serialize)]
struct Way {
    name: &'static str,
    about: &'static str,
    cite: &'static str,
    source: &'static str,
    keys: &'static str,
    recipe: String,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    knowledge: &'static str,
    scheme: &'static str,
    needs_teacher: bool,
    needs_labels: bool,
    cite: &'static str,
    needs_whole_batch: bool,
    source: &'static str,
    formula: String,
    options: Vec<Row>,
    /// A whole recipe, on data that every build has.
    recipe: String,
}

/// What `docs/methods.md` begins with.
const HEAD: &str = "\
# Methods

What a term of `[distill]` can be; made by `kd-train methods --format markdown`. Each loss is a mean over the batch unless
an option says otherwise; nothing flows into the teacher; teachers are in eval mode and never changed. Every term has a
`weight`, a `stage` and may have a `schedule` for its weight ([recipes.md](recipes.md)); a weight that is left out is the
published one, which belongs to the other options as they are left out. A tap is the name of a value of the network: `logits`,
`features`, `stage1`, `stage1.pre` (before its activation); `stages`, `stages.pre` and `stages.scores` mean all stages, paired
from the deepest up, `middle` and `last` one of them. Several taps are written with commas between. Where samples are mixed (mixup), `ce`,
`bce` and `byot` have both classes; other methods that read labels have that of the larger share. Methods that need labels are refused
where some samples have none (`data.labelled` below 1), those that need the whole batch where several processes train
together.

Where two taps differ in shape, a method of features adds a connector behind the student's, which is trained beside it and cut
off what is kept; maps, series and vectors meet by averaging the places that one has more of. A pair that cannot work is
refused before training.
";

/// Prints what was asked for.
pub fn run(args: &Methods, out: &mut dyn Write) -> Result<()> {
    let name = args.name.as_deref();
    let is_asked = |row: &str| name.is_none_or(|name| name == row);
    let methods: Vec<&Method> = METHODS.iter().copied().filter(|method| is_asked(method.name)).collect();
    let schemes: Vec<&Scheme> = SCHEMES.iter().filter(|scheme| is_asked(scheme.name)).collect();
    if let (true, Some(name)) = (methods.is_empty() && schemes.is_empty(), name) {
        let known = METHODS.iter().map(|method| method.name).chain(SCHEMES.iter().map(|scheme| scheme.name));
        let (known, found) = (known.collect::<Vec<_>>(), format!("`{}`", kd_runtime::error::Shown(name)));
        return Err(Refusal::new("methods", "a method or scheme", found, suggest(name, &known)));
    }
    let text = match args.format {
        MethodsFormat::Json => json::pretty(&Table {
            schema: "kd.methods/3",
            entries: methods.into_iter().map(entry).collect(),
            schemes: schemes.into_iter().map(way).collect(),
        }),
        MethodsFormat::Markdown => markdown(&methods, &schemes, name.is_none()),
        MethodsFormat::Text if name.is_none() => summary(&methods, &schemes),
        MethodsFormat::Text => {
            let methods = methods.into_iter().map(in_full);
            methods.chain(schemes.into_iter().map(scheme_in_full)).collect::<Vec<_>>().join("\n")
        }
    };
    out.write_all(text.as_bytes()).map_err(|e| files::refuse_write(Path::new("standard output"), &e))
}

fn entry(method: &Method) -> Entry {
    Entry {
        name: method.name,
        about: method.about,
        knowledge: method.knowledge.words(),
        scheme: method.scheme(),
        needs_teacher: method.needs_teacher(),
        needs_labels: method.needs_labels,
        cite: method.cite,
        needs_whole_batch: method.needs_whole_batch,
        source: method.source,
        formula: method.formula.to_string(),
        options: options(method),
        recipe: recipe(method),
    }
}

fn way(scheme: &Scheme) -> Way {
    let Scheme { name, about, cite, source, keys, teacher, recipe } = *scheme;
    Way { name, about, cite, source, keys, recipe: whole(teacher, STUDENT, recipe) }
}

/// The weight, which every term has but whose default is the method's, and the options.
fn options(method: &Method) -> Vec<Row> {
    let Weight { usual, source, forms } = method.weight;
    let mut about = "factor of the term".to_string();
    if !source.is_empty() {
        let _ = write!(about, ": {source}");
    }
    for (option, value, weight) in forms {
        let _ = write!(about, "; `{weight:?}` with `{option} = \"{value}\"`");
    }
    let values = Range::NotNegative.words().into();
    let weight = Row { name: "weight", about, values, default: format!("{usual:?}") };
    std::iter::once(weight).chain(rows(method.options)).collect()
}

/// What a method cannot do without.
fn needs(method: &Method) -> String {
    let words = [
        (method.scheme() == "codistill", "replicas"),
        (method.scheme() != "codistill" && method.needs_teacher(), "teacher"),
        (method.needs_labels, "labels"),
        (method.needs_whole_batch, "whole batch"),
    ];
    words.into_iter().filter(|(needed, _)| *needed).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}

/// A line a method, a line a scheme.
fn summary(methods: &[&Method], schemes: &[&Scheme]) -> String {
    let mut out = String::new();
    let wide = methods.iter().map(|method| method.name.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{:wide$}  {:9}  {:9}  {:28}  source", "method", "knowledge", "scheme", "needs");
    for method in methods {
        let (knowledge, scheme, needs) = (method.knowledge.words(), method.scheme(), needs(method));
        let _ = writeln!(out, "{:wide$}  {knowledge:9}  {scheme:9}  {needs:28}  {}", method.name, method.cite);
    }
    let broad = schemes.iter().map(|scheme| scheme.about.len()).max().unwrap_or(0);
    let _ = writeln!(out, "\n{:wide$}  {:broad$}  source", "scheme", "who teaches");
    for Scheme { name, about, cite, .. } in schemes {
        let _ = writeln!(out, "{name:wide$}  {about:broad$}  {cite}");
    }
    out.push_str("\n`kd-train methods NAME` prints what one is, its options or keys, and a recipe.\n");
    out
}

/// One method with all there is to know.
fn in_full(method: &Method) -> String {
    let mut out = String::new();
    let Entry { name, about, knowledge, scheme, cite, source, formula, options, recipe, .. } = entry(method);
    let _ = writeln!(out, "{name}: {about} ({cite})\n\n{formula}\n");
    let _ = writeln!(out, "Hands over: {knowledge}. Scheme: {scheme}. Source: {source}.\n\nOptions:");
    for Row { name, about, values, default } in options {
        let _ = writeln!(out, "  {name} = {default}: {about}; {values}");
    }
    let _ = write!(out, "\nA recipe:\n\n{recipe}");
    out
}

/// One scheme with all there is to know.
fn scheme_in_full(scheme: &Scheme) -> String {
    let Way { name, about, cite, source, keys, recipe } = way(scheme);
    format!("Scheme {name}: {about} ({cite})\n\n{keys}\n\nSource: {source}.\n\nA recipe:\n\n{recipe}")
}

fn markdown(methods: &[&Method], schemes: &[&Scheme], is_whole: bool) -> String {
    let mut out = if is_whole { HEAD.to_string() } else { String::new() };
    if is_whole {
        out.push_str("\n| method | hands over | scheme | needs | source | what it is |\n|---|---|---|---|---|---|\n");
        for method in methods {
            let (name, knowledge, scheme, needs) =
                (method.name, method.knowledge.words(), method.scheme(), needs(method));
            let (cite, about) = (method.cite, method.about);
            let _ = writeln!(out, "| [`{name}`](#{name}) | {knowledge} | {scheme} | {needs} | {cite} | {about} |");
        }
    }
    if !schemes.is_empty() {
        out.push_str("\n## Schemes\n\n| scheme | what it is | source | keys |\n|---|---|---|---|\n");
    }
    for Scheme { name, about, source, keys, .. } in schemes {
        let _ = writeln!(out, "| `{name}` | {about} | {source} | {keys} |");
    }
    for method in methods {
        let (name, about, cite, formula) = (method.name, method.about, method.cite, method.formula);
        let _ = write!(out, "\n## `{name}`\n\n{about} ({cite}). {formula}\n\nSource: {}.\n\n", method.source);
        out.push_str("| option | what it does | what it may be | left out |\n|---|---|---|---|\n");
        for Row { name, about, values, default } in options(method) {
            let _ = writeln!(out, "| `{name}` | {about} | {values} | `{default}` |");
        }
    }
    out
}

/// A student that learns the digits.
const STUDENT: &str = "arch = \"cnn\"\nwidths = [8, 16, 16]\n";
/// Who learns, and from whom, where values along time are handed over.
const SERIES_TEACHER: &str = "# The digits, read row by row: series of 8 steps with 8 channels.\n[teacher]\n\
    arch = \"ts_transformer\"\nlayers = 4\nwidth = 32\nhidden = 64\npatch = 1\nepochs = 10\n\n";
const SERIES_STUDENT: &str = "arch = \"ts_transformer\"\nlayers = 2\nwidth = 16\nhidden = 32\npatch = 1\n";

/// A recipe that shows a method, on data that every build has.
fn recipe(method: &Method) -> String {
    let (teacher, student) = match (method.scheme(), method.knowledge) {
        (_, Knowledge::Sequence) => (SERIES_TEACHER, SERIES_STUDENT),
        ("offline", _) => (TEACHER, STUDENT),
        _ => ("", STUDENT),
    };
    whole(teacher, student, method.recipe)
}

/// A recipe of its parts.
fn whole(teacher: &str, student: &str, distill: &str) -> String {
    format!(
        "[data]\nformat = \"digits\"\n\n{teacher}[student]\n{student}\n[train]\nepochs = 10\n\n[distill]\n{distill}"
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
            assert!(shown.contains(&recipe(method)) && shown.contains(method.cite), "{shown}");
            let line = summary.lines().find(|line| line.starts_with(&format!("{} ", method.name))).unwrap_or_default();
            let columns = [method.knowledge.words(), method.scheme(), &needs(method), method.cite];
            assert!(columns.iter().all(|column| line.contains(column)) && line.len() < 100, "{line}");
        }
        for scheme in SCHEMES {
            assert!(summary.contains(&format!("\n{} ", scheme.name)), "{}", scheme.name);
            let shown = printed(Some(scheme.name), MethodsFormat::Text);
            assert!(shown.contains(scheme.keys) && shown.ends_with(scheme.recipe), "{shown}");
        }
        let is_one = |name| name == "any" || SCHEMES.iter().any(|scheme| scheme.name == name);
        assert!(METHODS.iter().all(|method| is_one(method.scheme())));
    }

    #[test]
    fn an_unknown_method_is_refused_with_the_nearest_name() {
        for (name, near) in [("kdd", "`kd`"), ("hidden", "`tinybert_hidden`")] {
            let args = Methods { name: Some(name.into()), format: MethodsFormat::Text };
            let message = run(&args, &mut Vec::new()).expect_err("refused").to_string();
            let expected = format!("methods: expected a method or scheme, found `{name}`; did you mean {near}?");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}
