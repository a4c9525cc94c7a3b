//! Matrix product with transposes, factors and a broadcast addend: linear layers.

use kd_runtime::ops::{self, OpError};

use super::kernels::gemm::{Matrix, product};
use super::kernels::linear::{self, Plus, multiply, multiply_rows, multiply_transposed};
use super::kernels::rows::wide;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Scratch, ScratchSize, Site};
use crate::exec::Real;

struct Gemm<T> {
    m: usize,
    n: usize,
    k: usize,
    alpha: T,
    beta: T,
    trans_a: bool,
    trans_b: bool,
    /// Rows and columns of C (each 1 or full), if it is there.
    c: Option<[usize; 2]>,
    wanted: [bool; 2],
}

/// The kernel of a Gemm node.
pub fn build<T: Real>(op: &ops::gemm::Gemm, site: &Site<'_>) -> Built<T> {
    let (&[a0, a1], &[m, n]) = (site.shape(0), site.output) else {
        return Err(OpError::new("matrices", format!("{:?}", site.shape(0))));
    };
    let c = site.port(2).map(|port| match *port.shape {
        [.., rows, columns] => [rows, columns],
        [columns] => [1, columns],
        [] => [1, 1],
    });
    let k = if op.trans_a { a0 } else { a1 };
    let gemm = Gemm {
        m,
        n,
        k,
        alpha: T::from_f32(op.alpha),
        beta: T::from_f32(op.beta),
        trans_a: op.trans_a,
        trans_b: op.trans_b,
        c,
        wanted: [site.wanted(0), site.wanted(1)],
    };
    if gemm.is_plain() && !linear::fits([m, n, k]) {
        let expected = format!("a batch with which no matrix has more than {} elements", u32::MAX);
        return Err(OpError::new(expected, format!("[{m}, {k}] to [{m}, {n}]")));
    }
    Ok(Box::new(gemm))
}

impl<T: Real> Gemm<T> {
    fn a<'a>(&self, data: &'a [T]) -> Matrix<'a, T> {
        if self.trans_a { Matrix::rows(data, self.m).t() } else { Matrix::rows(data, self.k) }
    }

    fn b<'a>(&self, data: &'a [T]) -> Matrix<'a, T> {
        if self.trans_b { Matrix::rows(data, self.k).t() } else { Matrix::rows(data, self.n) }
    }

    /// A plain linear layer: rows of x against tiles.
    fn is_plain(&self) -> bool {
        !self.trans_a && self.alpha == T::ONE && self.beta == T::ONE
    }

    /// Whether the weights are rows that are worth reading as they lie: more than the batch.
    fn reads_rows(&self) -> bool {
        self.trans_b && self.m >= 8 && self.n > self.m && self.k > 0
    }

    fn d_c(&self, [rows, columns]: [usize; 2], d_y: &[T], d: &mut [T], add: bool) {
        if !add {
            d.fill(T::ZERO);
        }
        if rows == 1 && columns == self.n && self.beta == T::ONE {
            return wide(|| {
                for line in d_y.chunks_exact(self.n) {
                    d.iter_mut().zip(line).for_each(|(d, &value)| *d += value);
                }
            });
        }
        for (i, line) in d_y.chunks_exact(self.n).enumerate() {
            for (j, &value) in line.iter().enumerate() {
                let at = (if rows == 1 { 0 } else { i * columns }) + if columns == 1 { 0 } else { j };
                d[at] += self.beta * value;
            }
        }
    }
}

impl<T: Real> Kernel<T> for Gemm<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        if self.is_plain() && matches!(self.c, None | Some([1, _])) && self.c.is_none_or(|[_, n]| n == self.n) {
            let sizes = [self.m, self.n, self.k];
            if self.reads_rows() {
                let bias = self.c.is_some().then(|| x.get(2));
                let packed = &mut context.scratch.shared[..linear::shared::<T>([self.m, self.k])];
                return multiply_rows(y, x.get(0), x.get(1), sizes, bias, packed, &context.scratch.lanes);
            }
            let plus = if self.c.is_some() { Plus::Row(x.get(2)) } else { Plus::Nothing };
            return multiply(y, x.get(0), self.b(x.get(1)), sizes, plus, &context.scratch.lanes);
        }
        let add = self.c.is_some();
        if let Some([rows, columns]) = self.c {
            let c = x.get(2);
            for (i, line) in y.chunks_exact_mut(self.n.max(1)).enumerate() {
                let row = if rows == 1 { 0 } else { i * columns };
                for (j, y) in line.iter_mut().enumerate() {
                    *y = self.beta * c[row + if columns == 1 { 0 } else { j }];
                }
            }
        }
        product(y, self.a(x.get(0)), self.b(x.get(1)), [self.m, self.n, self.k], self.alpha, add);
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let (m, n, k) = (self.m, self.n, self.k);
        let d_matrix = Matrix::rows(d_y, n);
        if let Some((d, add)) = d_x[0].target() {
            let b = self.b(x.get(1));
            if self.is_plain() {
                let plus = if add { Plus::There } else { Plus::Nothing };
                multiply(d, d_y, b.t(), [m, k, n], plus, &context.scratch.lanes);
            } else if self.trans_a {
                product(d, b, d_matrix.t(), [k, m, n], self.alpha, add);
            } else {
                product(d, d_matrix, b.t(), [m, k, n], self.alpha, add);
            }
        }
        if let Some((d, add)) = d_x[1].target() {
            let a = self.a(x.get(0));
            if self.is_plain() {
                let Scratch { shared, lanes, .. } = &mut *context.scratch;
                let (left, right, sizes) =
                    if self.trans_b { (d_y, x.get(0), [m, n, k]) } else { (x.get(0), d_y, [m, k, n]) };
                let packed = &mut shared[..linear::outer_shared::<T>(sizes)];
                multiply_transposed(d, left, right, sizes, add, packed, lanes);
            } else if self.trans_b {
                product(d, d_matrix.t(), a, [n, k, m], self.alpha, add);
            } else {
                product(d, a.t(), d_matrix, [k, n, m], self.alpha, add);
            }
        }
        if let (Some(c), Some((d, add))) = (self.c, d_x.get_mut(2).and_then(Gradient::target)) {
            self.d_c(c, d_y, d, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let lane = linear::lane::<T>(self.k, self.n).max(linear::lane::<T>(self.n, self.k));
        // A smaller batch may read rows where the planned one, with more samples than there are rows, does not.
        let batches = 8..=self.m.min(self.n.saturating_sub(1));
        let reading = batches.map(|m| Self { m, ..*self }).filter(|gemm| gemm.is_plain() && gemm.reads_rows());
        let (shared, rows) = reading.fold((0, 0), |(shared, rows), gemm| {
            (linear::shared::<T>([gemm.m, gemm.k]).max(shared), linear::row_lane(gemm.m).max(rows))
        });
        if !self.is_plain() {
            return ScratchSize { shared, lane: 0 };
        }
        let sizes = if self.trans_b { [self.m, self.n, self.k] } else { [self.m, self.k, self.n] };
        let outer = linear::lane::<T>(self.m, sizes[2]);
        ScratchSize { shared: shared.max(linear::outer_shared::<T>(sizes)), lane: lane.max(rows).max(outer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Port;

    #[test]
    fn a_product_whose_places_kernels_cannot_tell_is_refused() {
        let check = |m: usize, n: usize, k: usize| {
            let port = |shape| Some(Port { shape, value: None, wanted: true, frame: None });
            let (x, w, output) = ([m, k], [n, k], [m, n]);
            let inputs = [port(&x), port(&w)];
            let site = Site { inputs: &inputs, output: &output, outputs: 1, frame: None };
            let op = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
            build::<f32>(&op, &site).map(|_| ()).map_err(|error| format!("{}, {}", error.expected, error.found))
        };
        let refused =
            |found: &str| Err(format!("a batch with which no matrix has more than 4294967295 elements, {found}"));
        assert_eq!(check(28_533, 10, 150_528), refused("[28533, 150528] to [28533, 10]"));
        assert_eq!(check(1 << 20, 1 << 12, 8), refused("[1048576, 8] to [1048576, 4096]"));
        assert_eq!(check(28_532, 10, 150_528), Ok(()));
        assert_eq!(check((1 << 20) - 1, 1 << 12, 8), Ok(()));
        // Packed panels have places, too.
        assert!(check(1 << 26, 1, 1).is_err() && check(1, 1 << 26, 1 << 26).is_err());
    }
}
