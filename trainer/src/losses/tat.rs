//! Attention over time.

use kd_runtime::Result;

use super::adapters::{TOKENS, student, teacher};
use super::at::{FORM, attention_distance, on_gpu};
use super::joint::{Joint, PairLoss};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::options::{Options, Spec};

/// The row of `tat`.
pub static METHOD: Method = Method {
    name: "tat",
    about: "temporal attention: when a network looks (attention transfer over time)",
    cite: "Zagoruyko, Komodakis 2017",
    knowledge: Knowledge::Sequence,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (q(s) - q(t))²` over batch and time, with `q` the mean over channels of the squares at each time, divided by its \
        length over time; summed over the pairs. The longer series is averaged to the shorter one's length (adaptive windows). No \
        adapter, any channels. `form = \"paper\"` as of `at`. Images are first averaged over their rows.",
    source: "Zagoruyko, Komodakis 2017 (arXiv 1612.03928) eq. 2, over time instead of places",
    weight: Weight { usual: 1000.0, source: "as of `at`", forms: &[("form", "paper", 1.0)] },
    recipe: "terms = [{ method = \"tat\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `tat`.
pub static OPTIONS: &[Spec] = &[student("stages"), teacher("stages"), FORM, TOKENS];

/// The method `tat`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (tokens, paper) = (options.flag("tokens"), options.text("form") == "paper");
    let series = |s: &_, t: &_| Joint::series(s, t, tokens, usize::MAX, true);
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let taps = pair.taps_that(student, teacher, |s, t| series(s, t).map(drop))?;
    let joints = taps.iter().map(|(s, t)| series(s, t)).collect::<Result<Vec<_>>>()?;
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu(2, paper)), move |compared, s, t, d| {
        let channels = [compared.student.channels, compared.teacher.channels];
        attention_distance(s, t, channels, compared.student.width, 2, paper, d)
    }))
}
