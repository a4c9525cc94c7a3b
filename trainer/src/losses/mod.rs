//! The methods of handing knowledge over: ONE FILE EACH; [`table`] lists them.
//!
//! A method is a pure function over rows of floats ([`Real`](crate::exec::Real), so that tests compare it in f64), a
//! [`Loss`] that calls it on the taps of a step, and a [`Method`], its row in the table.
//!
//! To start from: `mse_logits.rs` where both networks' answers are compared, `sp.rs` where relations are, `cosine.rs` where
//! features are, `cs_kd.rs` where there is no teacher, `ps_kd.rs` where the loss has a memory, `simkd.rs` where layers stay.

pub mod ab;
pub mod adapters;
pub mod at;
pub mod attention_relation;
pub mod bce;
pub mod byot;
pub mod cc;
pub mod ce;
pub mod codistill;
pub mod cosine;
pub mod crd;
pub mod cs_kd;
pub mod dist;
pub mod dkd;
pub mod embed;
pub mod fitnets;
pub mod fsp;
pub mod ft;
pub mod joint;
pub mod kd;
pub mod maps;
pub mod mlkd;
pub mod mse_logits;
pub mod nkd;
pub mod nst;
pub mod ofa;
pub mod ofd;
pub mod pair;
pub mod pkt;
pub mod ps_kd;
pub mod relation;
pub mod review;
pub mod rkd_a;
pub mod rkd_d;
pub mod rows;
pub mod simkd;
pub mod soft_dtw;
pub mod sp;
pub mod srrl;
pub mod table;
pub mod taps;
pub mod tat;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_features;
#[cfg(test)]
mod tests_own;
#[cfg(test)]
mod tests_relations;
pub mod tf_kd;
pub mod tinybert_attention;
pub mod tinybert_hidden;
pub mod vid;
pub mod wsld;

use kd_runtime::{Refusal, Result};

pub use pair::{Pair, Tap};

use rows::Average;

use crate::exec::Parameter;
use crate::gpu;
use crate::options::{Options, Spec};

/// What a loss sees of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Samples.
    pub size: usize,
    /// Classes of the samples, [`UNLABELLED`](crate::data::UNLABELLED) where they are not known; of mixed ones that of the
    /// larger share.
    pub labels: &'a [usize],
    /// Of mixed samples, one a sample: the class of the other one, and the share of the first. Else empty.
    pub mixed: &'a [(usize, f32)],
    /// Places of the samples among the training samples: the rows of a memory.
    pub places: &'a [usize],
    /// Share of the training that is done, from 0 to below 1.
    pub progress: f64,
}

/// What the gradients of a loss's own arrays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnGradient {
    /// Of the term's value: they are weighted as it is.
    OfValue,
    /// Of a loss of their own, whatever the term's weight.
    Apart,
    /// None: they stay what they are.
    Nothing,
}

/// One term of the total loss.
pub trait Loss {
    /// Names of the student's values that it reads and whose gradient it gives.
    fn student_taps(&self) -> &[String];
    /// Names of the teacher's values that it reads.
    fn teacher_taps(&self) -> &[String] {
        &[]
    }
    /// First values of its own arrays: trained beside the student where their role says so (an embedding of the teacher's
    /// side, a variance), else its memory. They lie in checkpoints and are never exported.
    fn own(&self) -> Vec<Parameter<f32>> {
        Vec::new()
    }
    /// What the gradients of its own arrays were, the last time that it was computed.
    fn own_gradient(&self) -> OwnGradient {
        OwnGradient::OfValue
    }
    /// What several teachers' answers are together, where it reads logits.
    fn average(&self) -> Average {
        Average::default()
    }
    /// What the value is divided by, of this batch: by it the values of shares of a batch become that of the whole.
    fn divisor(&self, batch: &Batch<'_>) -> f64 {
        batch.size as f64
    }
    /// The fewest samples of a batch of which its value says anything.
    fn least_batch(&self) -> usize {
        1
    }
    /// Parameters of the student's network that stay what they are: copied from the teacher.
    fn frozen(&self) -> &[String] {
        &[]
    }
    /// The same by kernels of a GPU; `None` where the host has to do it.
    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        None
    }
    /// The value (mean over the batch unless its doc says otherwise), not yet weighted. `d_student[i]`, of the length of
    /// `student[i]`, is overwritten with the gradient of the value, as is the gradient of each of `own` that is trained.
    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        own: &mut [Parameter<f32>],
    ) -> Result<f32>;
}

/// A row of the table of methods: a `pub static METHOD` in the method's file.
pub struct Method {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it is, on one line.
    pub about: &'static str,
    /// Who published it, on few columns: authors and year.
    pub cite: &'static str,
    /// What is handed over.
    pub knowledge: Knowledge,
    /// Whether it cannot do with samples whose class is not known.
    pub needs_labels: bool,
    /// Whether it compares samples of a batch with each other, or remembers them: several processes that share a batch
    /// cannot each do their part.
    pub needs_whole_batch: bool,
    /// Its equation and what it means, with where official code differs: lines of Markdown for `docs/methods.md`.
    pub formula: &'static str,
    /// Paper, equation.
    pub source: &'static str,
    /// Its factor where a term does not say one.
    pub weight: Weight,
    /// What the recipe that `kd-train methods NAME` prints, a whole one, has below `[distill]`: as it is published, with the
    /// task's weight, the stage and the terms beside it.
    pub recipe: &'static str,
    /// Its options, without `method`, `weight`, `stage` and `schedule`, which every term has.
    pub options: &'static [Spec],
    /// Makes the loss from checked options; adds its adapters to the pair. Refuses a pair that it cannot work for.
    pub build: fn(&Options, &mut Pair<'_>) -> Result<Box<dyn Loss>>,
}

impl Method {
    /// Whether it reads values of a teacher: it then has the option `teacher`.
    pub fn needs_teacher(&self) -> bool {
        self.options.iter().any(|spec| spec.name == "teacher")
    }

    /// The scheme that it is published for, a name of [`SCHEMES`](crate::schemes::table::SCHEMES); `any` for what is of the
    /// labels alone.
    pub fn scheme(&self) -> &'static str {
        match (self.knowledge, self.needs_teacher()) {
            (_, true) if self.name == codistill::METHOD.name => "codistill",
            (_, true) => "offline",
            (Knowledge::Task, false) => "any",
            (_, false) => "self",
        }
    }
}

/// The factor of a term that does not say its own: the published one, so that a copied recipe teaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// With the method's options as they are when left out.
    pub usual: f64,
    /// Whose it is and beside what, on one line; empty where none is published.
    pub source: &'static str,
    /// Others: where an option has this value, another factor.
    pub forms: &'static [(&'static str, &'static str, f64)],
}

impl Weight {
    /// Of a method without a published one.
    pub const ONE: Self = Self { usual: 1.0, source: "", forms: &[] };

    /// With these options of the method.
    pub fn of(&self, options: &Options) -> f64 {
        let form = self.forms.iter().find(|(option, value, _)| options.text(option) == *value);
        form.map_or(self.usual, |&(_, _, weight)| weight)
    }
}

/// What a method hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Of the labels, not of a teacher.
    Task,
    /// Answers.
    Response,
    /// Values inside the networks.
    Feature,
    /// How samples lie to each other.
    Relation,
    /// Values along time or tokens.
    Sequence,
    /// A network's own, from its deeper part or its past.
    Own,
}

impl Knowledge {
    /// For tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::Task => "labels",
            Self::Response => "answers",
            Self::Feature => "features",
            Self::Relation => "relations",
            Self::Sequence => "sequences",
            Self::Own => "its own",
        }
    }
}

/// Elements of a tap for one sample; an error if there is none.
pub(crate) fn columns(tap: &str, values: &[f32], batch: &Batch<'_>) -> Result<usize> {
    let columns = values.len().checked_div(batch.size).unwrap_or(0);
    if columns == 0 || columns * batch.size != values.len() || batch.labels.len() != batch.size {
        return Err(Refusal::new(
            format!("tap `{tap}`"),
            format!("rows and labels for {} samples", batch.size),
            format!("{} values, {} labels", values.len(), batch.labels.len()),
            "name a tap [N, classes]",
        ));
    }
    Ok(columns)
}
