//! The text of all kernels.

/// What every source begins with.
pub const PRELUDE: &str = include_str!("kd.cuh");

/// Where the elements of two arrays lie that are walked over together.
pub const PLACES: &str = include_str!("places.cuh");

/// Kernels that are compiled together, when the first of them is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its file.
    pub name: &'static str,
    /// Its text, without [`PRELUDE`].
    pub text: &'static str,
}

macro_rules! sources {
    ($($file:literal),+ $(,)?) => {
        /// All of them.
        pub const SOURCES: &[Source] = &[$(Source { name: $file, text: include_str!($file) }),+];
    };
}

sources! {
    "losses/at.cu",
    "losses/attention_relation.cu",
    "losses/bce.cu",
    "losses/ce.cu",
    "losses/cosine.cu",
    "losses/joint.cu",
    "losses/kd.cu",
    "losses/labelled.cu",
    "losses/mse_logits.cu",
    "losses/nst.cu",
    "losses/pairs.cu",
    "losses/probabilities.cu",
    "losses/relations.cu",
    "losses/rows.cu",
    "losses/soft_dtw.cu",
    "ops/arith.cu",
    "ops/batch_norm.cu",
    "ops/conv.cu",
    "ops/dropout.cu",
    "ops/gather.cu",
    "ops/global_max.cu",
    "ops/layer_norm.cu",
    "ops/maps.cu",
    "ops/moves.cu",
    "ops/pool.cu",
    "ops/product.cu",
    "ops/recurrent.cu",
    "ops/softmax.cu",
    "optim.cu",
}

impl Source {
    /// The kernels that it defines.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.text.lines().filter_map(|line| line.strip_prefix("KERNEL(")?.split(')').next())
    }

    /// What a compiler is given.
    pub fn whole(&self) -> String {
        format!("{PRELUDE}\n{PLACES}\n{}", self.text)
    }

    /// The source that defines a kernel.
    pub fn of(kernel: &str) -> Option<&'static Self> {
        SOURCES.iter().find(|source| source.kernels().any(|name| name == kernel))
    }
}
