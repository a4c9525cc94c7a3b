//! `report.html`: one file that needs nothing else, no script, readable on a phone and in the dark.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::fit::Epoch;
use super::monitor;
use super::plot::{self, Series, escape, legend, lines};
use super::results::{Insight, Results};
use super::{side_by_side, table};

/// `metrics.jsonl`: a line an epoch, network by network.
pub fn metrics(curves: &[Curve]) -> String {
    let epochs = curves.iter().flat_map(|curve| curve.history.iter().map(|epoch| (curve.name.as_str(), epoch)));
    epochs.map(|(name, epoch)| monitor::metrics_line(name, epoch)).collect()
}

/// How one network's training went.
pub struct Curve {
    /// `teacher`, `student`, `baseline`, with the seed where there are several.
    pub name: String,
    /// All its epochs.
    pub history: Vec<Epoch>,
}

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c1c1e; --page: #fff; --soft: #5f6066; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf0; --page: #16171a; --soft: #a5a6ad; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 60rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 30rem; } figure svg { width: 100%; height: auto; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.legend svg { width: 32px; height: 8px; } pre { overflow-x: auto; font-size: .85rem; }
";

/// The page.
pub fn render(results: &Results, classes: &[String], curves: &[Curve], recipe: &str) -> String {
    let name = escape(&results.name);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title>\n<style>{STYLE}{}</style>\n</head>\n<body>\n<h1>{name}</h1>\n",
        plot::style()
    );
    results_table(&mut html, results);
    side_by_side::parts(&mut html, results);
    html.push_str("<h2>Training</h2>\n");
    pictures(&mut html, curves);
    terms(&mut html, curves);
    sureness(&mut html, results, classes);
    let _ = write!(html, "<h2>Recipe</h2>\n<pre>{}</pre>\n</body>\n</html>\n", escape_lines(recipe));
    html
}

fn results_table(html: &mut String, results: &Results) {
    side_by_side::rows_of(html, &table::HEAD, table::rows(results).into_iter());
    for sentence in results.comparison.iter().flat_map(table::sentences) {
        let _ = writeln!(html, "<p>{}</p>", escape(&sentence));
    }
    let _ = writeln!(
        html,
        "<p class=\"soft\">These are {}. Intervals are those of 95 % (Clopper and Pearson) on the test samples, which no choice \
         was made by; ± is the sample standard deviation over seeds.</p>",
        escape(&table::epochs(results))
    );
}

fn pictures(html: &mut String, curves: &[Curve]) {
    let series = |of: fn(&Epoch) -> Option<f64>| -> Vec<Series> {
        let points = |curve: &Curve| {
            let found = curve.history.iter().filter_map(|epoch| Some((epoch.epoch as f64, of(epoch)?)));
            found.filter(|point| point.1.is_finite()).collect()
        };
        curves.iter().map(|curve| Series { name: curve.name.clone(), points: points(curve) }).collect()
    };
    let all = [
        ("Training loss: the weighted sum of the terms, in nats", series(|epoch| Some(epoch.loss))),
        ("Training accuracy, of augmented samples", series(|epoch| Some(epoch.train_accuracy))),
        ("Validation loss: cross-entropy, in nats", series(|epoch| epoch.validation_loss)),
        ("Validation accuracy", series(|epoch| epoch.validation_accuracy)),
    ];
    html.push_str(&legend(&all[0].1));
    html.push_str("<div class=\"curves\">\n");
    for (about, series) in &all {
        let svg = lines(about, ("epoch", 1.0), series);
        if !svg.is_empty() {
            let _ =
                writeln!(html, "<figure>\n{svg}<figcaption class=\"soft\">{}</figcaption>\n</figure>", escape(about));
        }
    }
    html.push_str("</div>\n");
}

/// The terms of each network that has several.
fn terms(html: &mut String, curves: &[Curve]) {
    let mut all = String::new();
    for curve in curves {
        let names: BTreeSet<&String> =
            curve.history.iter().flat_map(|epoch| &epoch.terms).map(|(name, _)| name).collect();
        let points = |name: &str| {
            let value = |epoch: &Epoch| epoch.terms.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
            let found = curve.history.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?)));
            found.filter(|point| point.1.is_finite()).collect()
        };
        let series: Vec<Series> =
            names.iter().map(|name| Series { name: name.to_string(), points: points(name) }).collect();
        let svg = lines(&format!("Terms of {}", curve.name), ("epoch", 1.0), &series);
        if series.len() > 1 && !svg.is_empty() {
            let (about, legend) = (escape(&curve.name), legend(&series));
            let _ = writeln!(all, "<figure>\n{legend}{svg}<figcaption class=\"soft\">{about}</figcaption>\n</figure>");
        }
    }
    if !all.is_empty() {
        let _ = writeln!(html, "<h2>Terms of the loss, not weighted</h2>\n<div class=\"curves\">\n{all}</div>");
    }
}

/// Reliability, softness and confusion: of the students and the teachers.
fn sureness(html: &mut String, results: &Results, classes: &[String]) {
    if results.insights.is_empty() {
        return;
    }
    html.push_str("<h2>How sure they are</h2>\n");
    let points = |insight: &Insight| insight.bins.iter().map(|bin| (bin.confidence, bin.accuracy)).collect();
    let shown = |insight: &Insight| format!("{}: error of calibration {:.2} %", insight.name, 100.0 * insight.ece);
    let mut series: Vec<Series> =
        results.insights.iter().map(|insight| Series { name: shown(insight), points: points(insight) }).collect();
    series.push(Series { name: "as sure as right".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] });
    let about = "Share of right answers over the largest probability, in 15 bins of the test samples";
    let _ = writeln!(
        html,
        "{}<div class=\"curves\">\n<figure>\n{}<figcaption class=\"soft\">{about}</figcaption>\n</figure>\n</div>",
        legend(&series),
        lines(about, ("confidence", 0.0), &series)
    );
    side_by_side::softness(html, results);
    // The student, and the first of its teachers.
    let teacher = results.insights.iter().find(|insight| insight.name.starts_with("teacher"));
    for (who, insight) in [("student", results.insights.first()), ("teacher", teacher)] {
        confusion(html, who, insight, classes);
    }
}

/// What a network takes for what.
fn confusion(html: &mut String, who: &str, insight: Option<&Insight>, classes: &[String]) {
    let Some(insight) = insight else { return };
    if insight.confusion.is_empty() {
        let why = format!("What the {who} takes for what: not shown of {} classes.", classes.len());
        let _ = writeln!(html, "<p class=\"soft\">{why}</p>");
        return;
    }
    let _ = write!(html, "<h2>What the {who} takes for what</h2>\n<div class=\"wide\"><table>\n<tr><th>class</th>");
    for class in classes {
        let _ = write!(html, "<th>{}</th>", escape(class));
    }
    html.push_str("</tr>\n");
    for (class, row) in classes.iter().zip(&insight.confusion) {
        let all = row.iter().sum::<u64>().max(1);
        let _ = write!(html, "<tr><td>{}</td>", escape(class));
        for &n in row {
            let shade = (60 * n).div_ceil(all);
            let _ =
                write!(html, "<td style=\"background: color-mix(in srgb, var(--c0) {shade}%, transparent)\">{n}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str(
        "</table></div>\n<p class=\"soft\">Test samples: a row a class, a column for what they are taken for.</p>\n",
    );
}

/// [`escape`], line by line.
fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::{Kept, SCHEMA};
    use super::*;

    #[test]
    fn a_hostile_name_adds_no_element() {
        let bad = "</title><script>alert(1)</script>\u{202e}";
        let results = Results {
            schema: SCHEMA.into(),
            name: bad.into(),
            keep: Kept::Last,
            selected_on: "last".into(),
            teachers: Vec::new(),
            arms: Vec::new(),
            comparison: None,
            insights: vec![Insight { name: bad.into(), ece: 0.1, bins: Vec::new(), confusion: vec![vec![3]] }],
            softness: Vec::new(),
        };
        let epoch = Epoch {
            epoch: 1,
            loss: 0.7,
            terms: vec![("ce".into(), 0.7), (bad.into(), 0.1)],
            train_accuracy: 0.5,
            validation_accuracy: None,
            validation_loss: Some(f64::NAN),
            lr_factor: 1.0,
            data_wait_share: 0.0,
            lr: 0.1,
            gradients: Vec::new(),
            stale_steps: Vec::new(),
        };
        let html = render(
            &results,
            &[bad.to_string()],
            &[Curve { name: bad.into(), history: vec![epoch] }],
            &format!("[run]\n# {bad}\n"),
        );
        assert!(!html.contains("<script") && !html.contains('\u{202e}') && !html.contains("NaN"), "{html}");
        // Two of the four pictures of training have a point to show; one is of terms, one of sureness.
        assert_eq!(html.matches("<figure>").count(), 4);
    }
}
