//! Matrix products.

use alloc::vec::Vec;

use super::rules::{f32_input, optional_f32};
use super::walk::{Walk, broadcast_strides};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::shape::broadcast;

/// `y = a * b` for row-major a [m, k] and b [k, n]; each sum in the order of k.
fn product(a: &[f32], b: &[f32], y: &mut [f32], [k, n]: [usize; 2]) {
    y.fill(0.0);
    if k == 0 || n == 0 {
        return;
    }
    for (a, y) in a.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
        for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
            y.iter_mut().zip(b).for_each(|(y, &b)| *y += a * b);
        }
    }
}

/// `y = a * b'` for row-major a [m, k] and b [n, k]; each sum in the order of k, four at a time.
fn product_transposed(a: &[f32], b: &[f32], y: &mut [f32], [k, n]: [usize; 2]) {
    y.fill(0.0);
    if k == 0 || n == 0 {
        return;
    }
    for (a, y) in a.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
        let mut fours = y.chunks_exact_mut(4);
        let mut rows = b.chunks_exact(4 * k);
        for (y, b) in (&mut fours).zip(&mut rows) {
            let (b0, b1) = b.split_at(2 * k);
            let ((b0, b1), (b2, b3)) = (b0.split_at(k), b1.split_at(k));
            let mut sums = [0.0; 4];
            for ((((&a, &b0), &b1), &b2), &b3) in a.iter().zip(b0).zip(b1).zip(b2).zip(b3) {
                sums = [sums[0] + a * b0, sums[1] + a * b1, sums[2] + a * b2, sums[3] + a * b3];
            }
            y.copy_from_slice(&sums);
        }
        for (y, b) in fours.into_remainder().iter_mut().zip(rows.remainder().chunks_exact(k)) {
            *y = a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b);
        }
    }
}

/// `y = a' * b` or `a' * b'` for row-major a [k, m]; each sum in the order of k.
fn product_of_columns(a: &[f32], b: &[f32], y: &mut [f32], [m, k, n]: [usize; 3], trans_b: bool) {
    let [step_k, step_j] = if trans_b { [1, k] } else { [n, 1] };
    for i in 0..m {
        let y = &mut y[i * n..][..n];
        y.fill(0.0);
        for p in 0..k {
            let a = a[p * m + i];
            let b = b[(p * step_k).min(b.len())..].iter().step_by(step_j.max(1));
            y.iter_mut().zip(b).for_each(|(y, &b)| *y += a * b);
        }
    }
}

/// `y = alpha * A' * B' + beta * C`, C broadcast to [M, N]; f32. ONNX Gemm.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
    /// Whether A is given transposed, [K, M].
    pub trans_a: bool,
    /// Whether B is given transposed, [N, K].
    pub trans_b: bool,
}

impl Gemm {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self {
            alpha: attrs.float_or("alpha", 1.0)?,
            beta: attrs.float_or("beta", 1.0)?,
            trans_a: attrs.flag("transA", false)?,
            trans_b: attrs.flag("transB", false)?,
        })
    }

    /// M, K and N of two matrices that fit.
    fn sizes(&self, a: &[usize], b: &[usize]) -> Option<[usize; 3]> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else { return None };
        let [m, k] = if self.trans_a { [a1, a0] } else { [a0, a1] };
        let [k2, n] = if self.trans_b { [b1, b0] } else { [b0, b1] };
        (k == k2).then_some([m, k, n])
    }
}

impl Operator for Gemm {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("alpha", super::Attr::Float(self.alpha))
            .with("beta", super::Attr::Float(self.beta))
            .with_int("transA", i64::from(self.trans_a))
            .with_int("transB", i64::from(self.trans_b))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let (a, b) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?);
        let [m, n] = self.sizes(a.shape, b.shape).map(|[m, _, n]| [m, n]).ok_or_else(|| {
            let found = alloc::format!("{:?} and {:?}", a.shape, b.shape);
            OpError::new("matrices [M, K] and [K, N], either one perhaps transposed", found)
        })?;
        let addend = optional_f32(inputs, 2)?;
        if let Some(c) = addend.filter(|c| broadcast(c.shape, &[m, n]).as_deref() != Some(&[m, n][..])) {
            let expected = alloc::format!("an addend that broadcasts to [{m}, {n}]");
            return Err(OpError::new(expected, alloc::format!("{:?}", c.shape)));
        }
        TensorType::one(a.element, &[m, n])
    }

    fn macs(&self, inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        let shape = |i: usize| inputs.get(i).copied().flatten().unwrap_or_default();
        let sizes = self.sizes(shape(0), shape(1)).unwrap_or_default();
        sizes.iter().fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (a, b, c) = (frame.input(0), frame.input(1), frame.optional(2));
        let Some([m, k, n]) = self.sizes(a.shape, b.shape) else {
            return Err(OpError::new("matrices that fit", "others"));
        };
        let (a, b, y) = (a.get::<f32>(), b.get::<f32>(), frame.output(0).get::<f32>());
        match (self.trans_a, self.trans_b) {
            (false, false) => product(a, b, y, [k, n]),
            (false, true) => product_transposed(a, b, y, [k, n]),
            (true, trans_b) => product_of_columns(a, b, y, [m, k, n], trans_b),
        }
        if self.alpha != 1.0 {
            y.iter_mut().for_each(|y| *y *= self.alpha);
        }
        if let Some(c) = c {
            let walk = Walk::new(&[m, n], [broadcast_strides(c.shape, &[m, n])], [0]);
            let c = c.get::<f32>();
            y.iter_mut().zip(walk.places()).for_each(|(y, [i])| *y += self.beta * c[i as usize]);
        }
        Ok(())
    }
}

/// Matrix product of the last two axes, the others broadcast, as numpy.matmul; f32. ONNX MatMul.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatMul;

impl MatMul {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

/// The sizes of a product; a vector is a matrix of one row or column.
struct Matrices<'a> {
    batch_a: &'a [usize],
    batch_b: &'a [usize],
    m: usize,
    k: usize,
    n: usize,
}

impl<'a> Matrices<'a> {
    fn new(a: &'a [usize], b: &'a [usize]) -> Option<Self> {
        let (batch_a, m, k) = match *a {
            [k] => (&[][..], 1, k),
            [ref batch @ .., m, k] => (batch, m, k),
            [] => return None,
        };
        let (batch_b, k2, n) = match *b {
            [k] => (&[][..], k, 1),
            [ref batch @ .., k, n] => (batch, k, n),
            [] => return None,
        };
        (k == k2).then_some(Self { batch_a, batch_b, m, k, n })
    }
}

impl Operator for MatMul {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let (a, b) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?);
        let fitting = Matrices::new(a.shape, b.shape);
        let batch = fitting.as_ref().and_then(|sizes| broadcast(sizes.batch_a, sizes.batch_b));
        let (Some(sizes), Some(mut shape)) = (fitting, batch) else {
            let found = alloc::format!("{:?} and {:?}", a.shape, b.shape);
            return Err(OpError::new("matrices […, M, K] and […, K, N], or vectors, that broadcast", found));
        };
        if a.shape.len() > 1 {
            shape.push(sizes.m);
        }
        if b.shape.len() > 1 {
            shape.push(sizes.n);
        }
        TensorType::one(a.element, &shape)
    }

    fn macs(&self, inputs: &[Option<&[usize]>], outputs: &[&[usize]]) -> u64 {
        let depth = inputs.first().copied().flatten().and_then(<[usize]>::last);
        outputs.iter().copied().flatten().chain(depth).fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (a, b) = (frame.input(0), frame.input(1));
        let Some(sizes) = Matrices::new(a.shape, b.shape) else {
            return Err(OpError::new("matrices that fit", "others"));
        };
        let Matrices { batch_a, batch_b, m, k, n } = sizes;
        let out = frame.output(0);
        let batch = &out.shape[..batch_a.len().max(batch_b.len())];
        let walk = Walk::new(batch, [broadcast_strides(batch_a, batch), broadcast_strides(batch_b, batch)], [0, 0]);
        let (a, b, y) = (a.get::<f32>(), b.get::<f32>(), out.get::<f32>());
        for (y, [i, j]) in y.chunks_exact_mut((m * n).max(1)).zip(walk.places()) {
            product(&a[i as usize * m * k..][..m * k], &b[j as usize * k * n..][..k * n], y, [k, n]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    fn counted(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| (i % 7) as f32 - 3.0).collect())
    }

    fn apply(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        eval(&op.into(), &inputs).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn multiplies_matrices_in_every_orientation() {
        for (m, k, n) in [(3, 4, 5), (1, 7, 9), (5, 1, 1), (2, 3, 4), (2, 0, 3), (0, 2, 3), (2, 3, 0)] {
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = counted(&if trans_a { [k, m] } else { [m, k] });
                let b = counted(&if trans_b { [n, k] } else { [k, n] });
                let c = counted(&[n]);
                let y = apply(Gemm { alpha: 0.5, beta: 2.0, trans_a, trans_b }, &[&a, &b, &c]).unwrap();
                let at = |t: &Tensor, i: usize| t.get::<f32>().unwrap()[i];
                for i in 0..m {
                    for j in 0..n {
                        let pair = |p: usize| {
                            let a = at(&a, if trans_a { p * m + i } else { i * k + p });
                            a * at(&b, if trans_b { j * k + p } else { p * n + j })
                        };
                        let expected = 0.5 * (0..k).map(pair).sum::<f32>() + 2.0 * at(&c, j);
                        assert_eq!(at(&y, i * n + j), expected, "{m} {k} {n} {trans_a} {trans_b}");
                    }
                }
            }
        }
    }

    #[test]
    fn broadcasts_the_addend() {
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
        let (a, b) = (Tensor::zeros(crate::graph::ElementType::F32, &[2, 1]), counted(&[1, 2]));
        for (shape, expected) in [
            (&[][..], [-3.0, -3.0, -3.0, -3.0]),
            (&[2], [-3.0, -2.0, -3.0, -2.0]),
            (&[2, 1], [-3.0, -3.0, -2.0, -2.0]),
            (&[2, 2], [-3.0, -2.0, -1.0, 0.0]),
        ] {
            let y = apply(op.clone(), &[&a, &b, &counted(shape)]).unwrap();
            assert_eq!(y.get::<f32>().unwrap(), expected);
        }
        for shape in [&[3][..], &[1, 2, 2], &[2, 3]] {
            assert!(apply(op.clone(), &[&a, &b, &counted(shape)]).is_err(), "{shape:?}");
        }
        assert!(apply(op.clone(), &[&a, &a]).is_err());
        assert!(apply(op, &[&a, &counted(&[2])]).is_err());
    }

    #[test]
    fn shapes_products_like_numpy() {
        type Case = (&'static [usize], &'static [usize], Option<&'static [usize]>);
        let cases: &[Case] = &[
            (&[3], &[3], Some(&[])),
            (&[3], &[3, 4], Some(&[4])),
            (&[2, 3], &[3], Some(&[2])),
            (&[5, 2, 3], &[3], Some(&[5, 2])),
            (&[3], &[5, 3, 4], Some(&[5, 4])),
            (&[5, 1, 2, 3], &[6, 3, 4], Some(&[5, 6, 2, 4])),
            (&[2, 2, 3], &[3, 3, 4], None),
            (&[2, 3], &[4, 3], None),
            (&[], &[3], None),
            (&[3], &[], None),
        ];
        for (a, b, shape) in cases {
            let y = apply(MatMul, &[&counted(a), &counted(b)]);
            assert_eq!(y.ok().as_ref().map(Tensor::shape), *shape, "{a:?} {b:?}");
        }
    }

    #[test]
    fn multiplies_each_matrix_of_a_batch() {
        let (a, b) = (counted(&[2, 1, 1, 2]), counted(&[3, 2, 1]));
        let y = apply(MatMul, &[&a, &b]).unwrap();
        assert_eq!(y.get::<f32>().unwrap(), [13.0, 3.0, -7.0, 3.0, 1.0, -1.0]);
        assert_eq!(MatMul.macs(&[Some(a.shape()), Some(b.shape())], &[y.shape()]), 12);
    }
}
