//! Padding with a constant (negative pads cut).

use kd_runtime::ops::{self, OpError, pad::PadMode};

use super::kernels::strided::{View, Walk, dense};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Pad<T> {
    /// Over the elements that input and output share: output, then input.
    walk: Walk,
    value: T,
    /// Whether the input is in the output as a whole.
    whole: bool,
}

/// The kernel of a Pad node; pads, value and axes are constants.
pub fn build<T: Real>(op: &ops::pad::Pad, site: &Site<'_>) -> Built<T> {
    let Padded { shape, to, from, value } = padded(op, site)?;
    let whole = shape == site.shape(0);
    Ok(Box::new(Pad { walk: Walk::new(&shape, &to, &from), value: T::from_f32(value), whole }))
}

/// Where input and output meet.
pub struct Padded {
    /// The box of elements that they share.
    pub shape: Vec<usize>,
    /// In the output.
    pub to: View,
    /// In the input.
    pub from: View,
    /// What is written elsewhere.
    pub value: f32,
}

/// What a Pad node says.
pub fn padded(op: &ops::pad::Pad, site: &Site<'_>) -> Result<Padded, OpError> {
    if op.mode != PadMode::Constant {
        return Err(OpError::new("mode constant to be trained through", format!("{:?}", op.mode)));
    }
    let x = site.shape(0);
    let pads = site.ints(1, "pads")?.unwrap_or_default();
    let value = site.scalar(2, "a value")?.unwrap_or(0.0);
    let axes = site.ints(3, "axes")?.unwrap_or_else(|| (0..x.len() as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(OpError::new(format!("{} pads", 2 * axes.len()), pads.len()));
    }
    let mut begins = vec![0_i64; x.len()];
    for (&axis, &begin) in axes.iter().zip(&pads) {
        begins[ops::attrs::axis(axis, x.len())?] = begin;
    }
    let (mut to, mut from) = (View::dense(site.output), View { offset: 0, strides: dense(x) });
    let mut shape = Vec::with_capacity(x.len());
    for (axis, &begin) in begins.iter().enumerate() {
        let (first, cut) = (begin.max(0) as usize, (-begin).max(0) as usize);
        let len = x[axis].saturating_sub(cut).min(site.output[axis].saturating_sub(first));
        to.offset += (first as isize) * to.strides[axis];
        from.offset += (cut as isize) * from.strides[axis];
        shape.push(len);
    }
    Ok(Padded { shape, to, from, value })
}

impl<T: Real> Kernel<T> for Pad<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let x = x.get(0);
        y.fill(self.value);
        self.walk.each(|run| run.pairs().for_each(|(i, j)| y[i] = x[j]));
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        if !self.whole && !add {
            d.fill(T::ZERO);
        }
        self.walk.each(|run| run.pairs().for_each(|(i, j)| d[j] = if add { d[j] + d_y[i] } else { d_y[i] }));
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
