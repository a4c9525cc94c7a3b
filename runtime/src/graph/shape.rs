//! Shapes: sizes that are known, or the one symbol `N` for the batch.

use alloc::vec::Vec;
use core::fmt;

/// One size of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A fixed size.
    Known(usize),
    /// The batch size, chosen when the graph is run.
    Batch,
}

/// The sizes of a value, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape of known sizes.
    pub fn known(sizes: &[usize]) -> Self {
        Self(sizes.iter().map(|&n| Dim::Known(n)).collect())
    }

    /// `[N, sizes…]`.
    pub fn batched(sizes: &[usize]) -> Self {
        Self(core::iter::once(Dim::Batch).chain(sizes.iter().map(|&n| Dim::Known(n))).collect())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Whether any size is the batch symbol.
    pub fn has_batch(&self) -> bool {
        self.0.contains(&Dim::Batch)
    }

    /// The sizes when the batch symbol is `batch`.
    pub fn bind(&self, batch: usize) -> Vec<usize> {
        self.0.iter().map(|dim| if let Dim::Known(n) = dim { *n } else { batch }).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match dim {
                Dim::Known(n) => write!(f, "{n}")?,
                Dim::Batch => f.write_str("N")?,
            }
        }
        f.write_str("]")
    }
}

/// ONNX's multidirectional broadcasting: sizes are aligned at the end, a size of 1 stretches. `None` if they do not fit.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| {
        if i + s.len() < rank { 1 } else { s[i + s.len() - rank] }
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
