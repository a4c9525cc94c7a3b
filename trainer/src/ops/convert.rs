//! Between planar tensors and images with their channels last: steps that the executor puts in where neighbours differ.

use super::kernels::frame::{self, Frame};
use super::{Context, Gradient, Inputs, Keeps, Kernel};
use crate::exec::Real;

/// Planar to channels last.
pub struct ToFrame(pub Frame);

/// Channels last to planar.
pub struct ToPlanar(pub Frame);

impl<T: Real> Kernel<T> for ToFrame {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        frame::from_planar(y, &self.0, self.0.value_halo, x.get(0), false);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        if let Some((d, add)) = d_x[0].target() {
            frame::to_planar(d, d_y, &self.0, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

impl<T: Real> Kernel<T> for ToPlanar {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        frame::to_planar(y, x.get(0), &self.0, false);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        if let Some((d, add)) = d_x[0].target() {
            frame::from_planar(d, &self.0, self.0.gradient_halo && !add, d_y, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
