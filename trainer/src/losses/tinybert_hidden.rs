//! Hidden states, layer by layer.

use kd_runtime::Result;

use super::adapters::{CONNECTOR, TOKENS, connect_widths, student, teacher};
use super::fitnets::{Distance, squared_distance};
use super::joint::{Joint, OnGpu, PairLoss};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::gpu;
use crate::options::{Options, Spec};

/// The row of `tinybert_hidden`.
pub static METHOD: Method = Method {
    name: "tinybert_hidden",
    about: "hidden states through a linear layer (TinyBERT)",
    cite: "Jiao et al. 2020",
    knowledge: Knowledge::Sequence,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (W·s + b - t)²` over all elements, summed over the pairs; the linear layer (of what is no tokens a 1x1 \
        convolution) is left out where the widths are equal. The larger map or longer series is averaged to the smaller one.\n\n\
        TinyBERT shares one linear layer among all pairs; here each has its own, since stages of other networks have other \
        widths. Its layer map `g(m) = m · L_t / L_s` is written by naming the teacher's taps.",
    source: "Jiao et al. 2020 (arXiv 1909.10351) eq. 8, 9",
    weight: Weight { usual: 1.0, source: "TinyBERT", forms: &[] },
    recipe: "terms = [{ method = \"tinybert_hidden\", student = \"stage1, stage2\", teacher = \"stage2, stage4\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `tinybert_hidden`.
pub static OPTIONS: &[Spec] = &[student("stages"), teacher("stages"), CONNECTOR, TOKENS];

/// The method `tinybert_hidden`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let tokens = options.flag("tokens");
    let taps = pair.taps(options.text("student"), options.text("teacher"))?;
    let taps = connect_widths(pair, options, taps, tokens)?;
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, tokens)).collect::<Result<Vec<_>>>()?;
    let on_gpu: OnGpu = Box::new(|compared, gpu, sides, given| {
        let factor = 1.0 / sides[0].len() as f32;
        gpu::losses::fitnets::total_distance(gpu, 0, compared.pair > 0, sides, Distance::Squared, factor, given);
        Ok(())
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), |_, s, t, d| squared_distance(s, t, 1.0 / s.len() as f32, d)))
}
