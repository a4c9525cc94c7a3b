//! Matrix product of the last two axes, the others broadcast.

use kd_runtime::ops::{self, OpError};

use super::kernels::gemm::{Matrix, product};
use super::kernels::strided::{View, Walk};
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct MatMul {
    m: usize,
    n: usize,
    k: usize,
    /// Matrices of A and of B for each matrix of the output.
    pairs: Vec<(usize, usize)>,
    /// Whether A, and B, have a matrix of their own for each matrix of the output.
    own: [bool; 2],
    wanted: [bool; 2],
}

/// The kernel of a MatMul node. A vector is a matrix of one row (A) or one column (B).
pub fn build<T: Real>(_op: &ops::gemm::MatMul, site: &Site<'_>) -> Built<T> {
    let (a, b) = (site.shape(0), site.shape(1));
    let (a_batch, m, k) = match *a {
        [ref batch @ .., m, k] => (batch, m, k),
        [k] => (&[][..], 1, k),
        [] => return Err(OpError::new("A of rank 1 or more", 0)),
    };
    let (b_batch, n) = match *b {
        [ref batch @ .., _, n] => (batch, n),
        [_] => (&[][..], 1),
        [] => return Err(OpError::new("B of rank 1 or more", 0)),
    };
    let wanted = [site.wanted(0), site.wanted(1)];
    if b_batch.iter().product::<usize>() == 1 {
        // One B for all: the matrices of A are one tall one.
        let rows = a_batch.iter().product::<usize>() * m;
        return Ok(Box::new(MatMul { m: rows, n, k, pairs: vec![(0, 0)], own: [true; 2], wanted }));
    }
    let batch = kd_runtime::graph::shape::broadcast(a_batch, b_batch)
        .ok_or_else(|| OpError::new("batches that broadcast", format!("{a_batch:?} and {b_batch:?}")))?;
    let mut pairs = Vec::new();
    let (a, b) = (View::broadcast(a_batch, &batch), View::broadcast(b_batch, &batch));
    Walk::new(&batch, &a, &b).each(|run| pairs.extend(run.pairs()));
    let own =
        [pairs.iter().enumerate().all(|(at, &(i, _))| at == i), pairs.iter().enumerate().all(|(at, &(_, j))| at == j)];
    Ok(Box::new(MatMul { m, n, k, pairs, own, wanted }))
}

impl<T: Real> Kernel<T> for MatMul {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (m, n, k) = (self.m, self.n, self.k);
        let (a, b) = (x.get(0), x.get(1));
        // Matrices in parallel; each product splits itself only if it is large.
        threads::chunks(y, m * n, |at, y| {
            let (i, j) = self.pairs[at];
            let (a, b) = (Matrix::rows(&a[i * m * k..], k), Matrix::rows(&b[j * k * n..], n));
            product(y, a, b, [m, n, k], T::ONE, false);
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let (m, n, k) = (self.m, self.n, self.k);
        for (which, gradient) in d_x.iter_mut().enumerate() {
            let Some((d, add)) = gradient.target() else { continue };
            if self.own[which] {
                let len = if which == 0 { m * k } else { k * n };
                let other = x.get(1 - which);
                threads::chunks(d, len, |at, d| {
                    let ((i, j), d_y) = (self.pairs[at], Matrix::rows(&d_y[at * m * n..], n));
                    if which == 0 {
                        let b = Matrix::rows(&other[j * k * n..], n);
                        product(d, d_y, b.t(), [m, k, n], T::ONE, add);
                    } else {
                        let a = Matrix::rows(&other[i * m * k..], k);
                        product(d, a.t(), d_y, [k, n, m], T::ONE, add);
                    }
                });
                continue;
            }
            // A matrix that several outputs share takes the sum, in the order of the pairs.
            if !add {
                d.fill(T::ZERO);
            }
            for (d_y, &(i, j)) in d_y.chunks_exact((m * n).max(1)).zip(&self.pairs) {
                let d_matrix = Matrix::rows(d_y, n);
                if which == 0 {
                    let b = Matrix::rows(&x.get(1)[j * k * n..], n);
                    product(&mut d[i * m * k..], d_matrix, b.t(), [m, k, n], T::ONE, true);
                } else {
                    let a = Matrix::rows(&x.get(0)[i * m * k..], k);
                    product(&mut d[j * k * n..], a.t(), d_matrix, [k, n, m], T::ONE, true);
                }
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }
}
