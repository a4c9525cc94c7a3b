//! What LSTM and GRU share: attributes, shapes, the order of steps, sums of a gate.

use alloc::string::String;
use alloc::vec::Vec;

use super::rules::{f32_input, optional, optional_f32, same_shape};
use super::{Attr, Attrs, Input, OpError, TensorType};
use crate::graph::ElementType;

/// Which way a network reads its sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the first step to the last.
    #[default]
    Forward,
    /// From the last step to the first.
    Reverse,
    /// Both, with weights of their own.
    Bidirectional,
}

impl Direction {
    /// For each direction whether it reads from the last step.
    pub fn reversed(self) -> &'static [bool] {
        match self {
            Self::Forward => &[false],
            Self::Reverse => &[true],
            Self::Bidirectional => &[false, true],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Bidirectional => "bidirectional",
        }
    }
}

/// Attributes that LSTM and GRU share. Sequences lie time first (layout 0) and are all of the same length; activations
/// are the usual ones, sigmoid and tanh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recurrent {
    /// Which way sequences are read.
    pub direction: Direction,
    /// Elements of the state; `None` where the weights tell.
    pub hidden_size: Option<usize>,
}

impl Recurrent {
    /// Takes the attributes; `activations` are those of one direction, the only ones that are known.
    pub(super) fn read(attrs: &mut Attrs, activations: &[&str]) -> Result<Self, OpError> {
        let direction = match attrs.string_or("direction", "forward")?.as_str() {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            "bidirectional" => Direction::Bidirectional,
            other => {
                let known = "direction forward, reverse or bidirectional";
                return Err(OpError::new(known, alloc::format!("`{other}`")));
            }
        };
        let hidden_size = match attrs.int("hidden_size")? {
            None => None,
            Some(n) => match usize::try_from(n).ok().filter(|n| (1..=1 << 31).contains(n)) {
                Some(n) => Some(n),
                None => return Err(OpError::new("a hidden_size of 1 to 2^31", n)),
            },
        };
        match attrs.int_or("layout", 0)? {
            0 => {}
            other => return Err(OpError::new("layout 0 (time first; put a Transpose before and after)", other)),
        }
        match attrs.take("activations") {
            None => {}
            Some(Attr::Strings(names)) => {
                let usual = activations.iter().cycle();
                let same = names.iter().zip(usual).all(|(name, usual)| name.eq_ignore_ascii_case(usual));
                if !same || names.len() != activations.len() * direction.reversed().len() {
                    let expected = alloc::format!("activations {}", activations.join(", "));
                    return Err(OpError::new(expected, names.join(", ")));
                }
            }
            Some(other) => return Err(OpError::new("activations by name", alloc::format!("{other:?}"))),
        }
        for name in ["activation_alpha", "activation_beta"] {
            match attrs.take(name) {
                None => {}
                Some(Attr::Floats(values)) if values.is_empty() => {}
                Some(other) => return Err(OpError::new(alloc::format!("no {name}"), alloc::format!("{other:?}"))),
            }
        }
        match attrs.take("clip") {
            None => Ok(Self { direction, hidden_size }),
            Some(other) => Err(OpError::new("sums without a clip", alloc::format!("{other:?}"))),
        }
    }

    /// The attributes.
    pub(super) fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("direction", Attr::String(String::from(self.direction.name())));
        if let Some(n) = self.hidden_size {
            attrs = attrs.with_int("hidden_size", n as i64);
        }
        attrs
    }

    /// Sizes of a layer with so many gates, whose inputs X, W, R, B and initial_h (0, 1, 2, 3, 5) fit.
    pub(super) fn sizes(&self, gates: usize, inputs: &[Option<Input<'_>>]) -> Result<Sizes, OpError> {
        let (x, w, r) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?, f32_input(inputs, 2)?);
        let sizes = Sizes::of(&[Some(x.shape), Some(w.shape), Some(r.shape)])
            .filter(|sizes| sizes.steps > 0 && sizes.hidden > 0);
        let Some(sizes) = sizes else {
            let found = alloc::format!("{:?}, {:?} and {:?}", x.shape, w.shape, r.shape);
            return Err(OpError::new("X [T, N, I], W [D, gates H, I] and R [D, gates H, H], T and H above 0", found));
        };
        let Sizes { directions, features, hidden, batch, .. } = sizes;
        if directions != self.direction.reversed().len() || self.hidden_size.is_some_and(|n| n != hidden) {
            let expected =
                alloc::format!("weights of direction {}, hidden_size {:?}", self.direction.name(), self.hidden_size);
            return Err(OpError::new(expected, alloc::format!("R {:?}", r.shape)));
        }
        let rows = gates.checked_mul(hidden).ok_or_else(|| OpError::new("sizes below 2^31", hidden))?;
        same_shape("W", w.shape, &[directions, rows, features])?;
        same_shape("R", r.shape, &[directions, rows, hidden])?;
        if let Some(b) = optional_f32(inputs, 3)? {
            same_shape("B", b.shape, &[directions, 2 * rows])?;
        }
        if optional(inputs, 4).is_some() {
            return Err(OpError::new("sequences of one length, without sequence_lens", "sequence_lens"));
        }
        for (i, name) in [(5, "initial_h"), (6, "initial_c")] {
            if let Some(state) = optional_f32(inputs, i)? {
                same_shape(name, state.shape, &[directions, batch, hidden])?;
            }
        }
        Ok(sizes)
    }
}

/// Sizes of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Steps of a sequence.
    pub steps: usize,
    /// Sequences.
    pub batch: usize,
    /// Elements of an input.
    pub features: usize,
    /// Directions, 1 or 2.
    pub directions: usize,
    /// Elements of the state.
    pub hidden: usize,
}

impl Sizes {
    /// From the shapes of X `[T, N, I]`, W and R `[D, gates H, H]`; `None` if they have other ranks.
    pub fn of(inputs: &[Option<&[usize]>]) -> Option<Self> {
        let shape = |i: usize| inputs.get(i).copied().flatten();
        let (&[steps, batch, features], &[directions, _, hidden]) = (shape(0)?, shape(2)?) else { return None };
        Some(Self { steps, batch, features, directions, hidden })
    }

    /// The first output, all states, and the last state, so many times.
    pub(super) fn outputs(&self, states: usize) -> Vec<TensorType> {
        let Self { steps, batch, directions, hidden, .. } = *self;
        let all = TensorType { element: ElementType::F32, shape: [steps, directions, batch, hidden].into() };
        let last = TensorType { element: ElementType::F32, shape: [directions, batch, hidden].into() };
        core::iter::once(all).chain(core::iter::repeat_n(last, states)).collect()
    }

    /// Multiply-accumulates with so many gates.
    pub(super) fn macs(&self, gates: usize) -> u64 {
        let Self { steps, batch, features, directions, hidden } = *self;
        let inner = (features as u64).saturating_add(hidden as u64);
        [steps, batch, directions, gates, hidden].iter().fold(inner, |n, &size| n.saturating_mul(size as u64))
    }

    /// Where the state of a step, a direction and a sequence begins in the first output.
    pub fn state(&self, step: usize, direction: usize, sequence: usize) -> usize {
        ((step * self.directions + direction) * self.batch + sequence) * self.hidden
    }
}

/// The weights of one direction of a layer with `gates` gates.
pub(super) struct Weights<'a> {
    /// For the input, `[gates H, I]`.
    pub w: &'a [f32],
    /// For the state, `[gates H, H]`.
    pub r: &'a [f32],
    /// Added to the sums of the input, and of the state, `[gates H]` each.
    pub bias: Option<[&'a [f32]; 2]>,
}

impl<'a> Weights<'a> {
    /// Those of direction `d`.
    pub fn new(w: &'a [f32], r: &'a [f32], b: Option<&'a [f32]>, sizes: &Sizes, gates: usize, d: usize) -> Self {
        let (rows, columns) = (gates * sizes.hidden, sizes.features);
        let bias = b.map(|b| {
            let (input, state) = b[2 * d * rows..][..2 * rows].split_at(rows);
            [input, state]
        });
        Self {
            w: &w[d * rows * columns..][..rows * columns],
            r: &r[d * rows * sizes.hidden..][..rows * sizes.hidden],
            bias,
        }
    }

    /// The sums of these rows over the input.
    pub fn of_input<const K: usize>(&self, rows: [usize; K], x: &[f32]) -> [f32; K] {
        sums(self.w, rows, x, rows.map(|row| self.bias.map_or(0.0, |[bias, _]| bias[row])))
    }

    /// The sums of these rows over the state.
    pub fn of_state<const K: usize>(&self, rows: [usize; K], h: &[f32]) -> [f32; K] {
        sums(self.r, rows, h, rows.map(|row| self.bias.map_or(0.0, |[_, bias]| bias[row])))
    }
}

/// Products of some rows of a matrix with a vector, added to `sums`, in the order of the columns.
fn sums<const K: usize>(matrix: &[f32], rows: [usize; K], x: &[f32], mut sums: [f32; K]) -> [f32; K] {
    let rows = rows.map(|row| &matrix[row * x.len()..][..x.len()]);
    for (i, x) in x.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(&rows) {
            *sum += x * row[i];
        }
    }
    sums
}

/// The names of an operator's activations, for messages and files.
#[cfg(test)]
pub(super) fn names(list: &[&str]) -> Attr {
    Attr::Strings(list.iter().map(|&name| String::from(name)).collect())
}
