//! Matrix products: Gemm and MatMul.

use kd_runtime::graph::shape::broadcast;
use kd_runtime::ops::{self, OpError};

use super::{Made, Walk, maps, walk};
use crate::gpu::{Args, Gpu, Matmul};
use crate::ops::kernels::strided::View;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

/// A matrix inside an array: strides from row to row and from column to column.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row after row, of so many columns.
    pub fn rows(data: &'a [f32], columns: usize) -> Self {
        Self { data, strides: [columns, 1] }
    }

    fn turned_if(self, is: bool) -> Self {
        let [rows, columns] = self.strides;
        Self { strides: if is { [columns, rows] } else { self.strides }, ..self }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        self.turned_if(true)
    }
}

/// `y (+)= alpha A B` for the matrices of a batch, each `[m, k]` by `[k, n]`.
struct Product<'a> {
    gpu: &'a Gpu,
    /// m, n, k.
    sizes: [usize; 3],
    alpha: f32,
    /// From matrix to matrix of A and B.
    batch: &'a Walk,
}

impl Product<'_> {
    fn run(&self, y: &mut [f32], add: bool, a: Matrix<'_>, b: Matrix<'_>) {
        let [m, n, k] = self.sizes;
        if let Some((batch, steps)) = self.batch.even() {
            let product = Matmul {
                inputs: [a.data.as_ptr().cast(), b.data.as_ptr().cast()],
                output: y.as_mut_ptr().cast(),
                sizes: self.sizes,
                strides: [a.strides, b.strides],
                batch,
                steps,
                alpha: self.alpha,
                add,
            };
            // SAFETY: matrices of these sizes at the places of the walk.
            if unsafe { self.gpu.matmul(&product) } {
                return;
            }
        }
        let elements = self.batch.elements() * m * n;
        let args = Args::none().read(a.data).read(b.data).write(y).numbers(&[elements, m, n, k]);
        let args = args.numbers(&a.strides).numbers(&b.strides).flag(add).float(self.alpha);
        // SAFETY: product: matrices of these sizes at the places of the walk.
        unsafe { self.gpu.each("product", elements, &self.batch.tell(args)) };
    }
}

/// `y (+)= A B`: `[m, k]` by `[k, n]`, given m, n, k.
pub(super) fn product(gpu: &Gpu, y: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, sizes: [usize; 3], add: bool) {
    Product { gpu, sizes, alpha: 1.0, batch: &alone() }.run(y, add, a, b);
}

/// `y (+)= alpha A B` for each of `count` matrices, `[m, k]` by `[k, n]`, that lie one behind the other, given m, n, k.
pub(crate) fn products(
    gpu: &Gpu,
    y: &mut [f32],
    [a, b]: [Matrix<'_>; 2],
    count: usize,
    sizes: [usize; 3],
    alpha: f32,
    add: bool,
) {
    let [m, n, k] = sizes;
    let lengths = [y.len(), a.data.len(), b.data.len()];
    assert_eq!(lengths, [m * n, m * k, k * n].map(|size| count * size), "matrices one behind the other");
    let view = |step: usize| View { offset: 0, strides: vec![step as isize] };
    let batch = walk(&[count], &view(m * k), &view(k * n)).expect("one axis is not too many");
    Product { gpu, sizes, alpha, batch: &batch }.run(y, add, a, b);
}

/// One matrix of each.
fn alone() -> Walk {
    let view = View { offset: 0, strides: Vec::new() };
    walk(&[], &view, &view).expect("no axes are not too many")
}

struct Gemm {
    gpu: Gpu,
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    beta: f32,
    trans_a: bool,
    trans_b: bool,
    /// Rows and columns of C (each 1 or full), if it is there.
    c: Option<[usize; 2]>,
    wanted: [bool; 2],
    alone: Walk,
}

/// Gemm.
pub fn gemm(op: &ops::gemm::Gemm, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (&[a0, a1], &[m, n]) = (site.shape(0), site.output) else {
        return Err(OpError::new("matrices", format!("{:?}", site.shape(0))).into());
    };
    let c = site.port(2).map(|port| match *port.shape {
        [.., rows, columns] => [rows, columns],
        [columns] => [1, columns],
        [] => [1, 1],
    });
    let (trans_a, trans_b) = (op.trans_a, op.trans_b);
    let (k, wanted) = (if trans_a { a0 } else { a1 }, [site.wanted(0), site.wanted(1)]);
    let (alpha, beta, gpu, alone) = (op.alpha, op.beta, gpu.clone(), alone());
    Ok(Box::new(Gemm { gpu, m, n, k, alpha, beta, trans_a, trans_b, c, wanted, alone }))
}

impl Gemm {
    fn a<'a>(&self, data: &'a [f32]) -> Matrix<'a> {
        Matrix::rows(data, if self.trans_a { self.m } else { self.k }).turned_if(self.trans_a)
    }

    fn b<'a>(&self, data: &'a [f32]) -> Matrix<'a> {
        Matrix::rows(data, if self.trans_b { self.k } else { self.n }).turned_if(self.trans_b)
    }

    fn product(&self, sizes: [usize; 3]) -> Product<'_> {
        Product { gpu: &self.gpu, sizes, alpha: self.alpha, batch: &self.alone }
    }
}

impl Kernel<f32> for Gemm {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        if let Some([rows, columns]) = self.c {
            let n = y.len();
            let strides = [if rows == 1 { 0 } else { columns }, usize::from(columns != 1)];
            let args = Args::none().read(x.get(2)).write(y).numbers(&[n, self.m, self.n]).numbers(&strides);
            // SAFETY: stretch: y of n elements, C of the sizes that its strides were made for.
            unsafe { self.gpu.each("stretch", n, &args.float(self.beta)) };
        }
        let (a, b) = (self.a(x.get(0)), self.b(x.get(1)));
        self.product([self.m, self.n, self.k]).run(y, self.c.is_some(), a, b);
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let (m, n, k) = (self.m, self.n, self.k);
        let d_matrix = Matrix::rows(d_y, n);
        if let Some((d, add)) = d_x[0].target() {
            let b = self.b(x.get(1));
            match self.trans_a {
                true => self.product([k, m, n]).run(d, add, b, d_matrix.t()),
                false => self.product([m, k, n]).run(d, add, d_matrix, b.t()),
            }
        }
        if let Some((d, add)) = d_x[1].target() {
            let a = self.a(x.get(0));
            match self.trans_b {
                true => self.product([n, k, m]).run(d, add, d_matrix.t(), a),
                false => self.product([k, n, m]).run(d, add, a.t(), d_matrix),
            }
        }
        if let (Some(c), Some((d, add))) = (self.c, d_x.get_mut(2).and_then(Gradient::target)) {
            let args = Args::none().read(d_y).write(d).numbers(&[0, m, n]).numbers(&c).flag(add).float(self.beta);
            // SAFETY: stretch_backward: d_y [m, n], d of the sizes of C.
            unsafe { self.gpu.groups("stretch_backward", c[0] * c[1], &args) };
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }
}

struct MatMul {
    gpu: Gpu,
    m: usize,
    n: usize,
    k: usize,
    /// Over the batch: from matrix to matrix of A and B, of A and the output, of the output and B.
    batch: Walk,
    with_output: [Walk; 2],
    /// Matrices of A and of B for each matrix of the output, where several outputs share one.
    pairs: Vec<(usize, usize)>,
    own: [bool; 2],
    alone: Walk,
    wanted: [bool; 2],
}

/// MatMul. A vector is a matrix of one row (A) or one column (B).
pub fn matmul(_op: &ops::gemm::MatMul, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (a, b) = (site.shape(0), site.shape(1));
    let (a_batch, m, k) = match *a {
        [ref batch @ .., m, k] => (batch, m, k),
        [k] => (&[][..], 1, k),
        [] => return Err(OpError::new("A of rank 1 or more", 0).into()),
    };
    let (b_batch, n) = match *b {
        [ref batch @ .., _, n] => (batch, n),
        [_] => (&[][..], 1),
        [] => return Err(OpError::new("B of rank 1 or more", 0).into()),
    };
    // One B for all: the matrices of A are one tall one.
    let is_tall = b_batch.iter().product::<usize>() == 1;
    let rows = if is_tall { a_batch.iter().product::<usize>() * m } else { m };
    let (a_batch, b_batch) = if is_tall { (&[][..], &[][..]) } else { (a_batch, b_batch) };
    let batch = broadcast(a_batch, b_batch)
        .ok_or_else(|| OpError::new("batches that broadcast", format!("{a_batch:?} and {b_batch:?}")))?;
    let view = |shape: &[usize], size: usize| {
        let view = View::broadcast(shape, &batch);
        View { strides: view.strides.iter().map(|stride| stride * size as isize).collect(), ..view }
    };
    let (of_a, of_b, of_y) = (view(a_batch, rows * k), view(b_batch, k * n), view(&batch, rows * n));
    let elements: usize = batch.iter().product();
    let own = [a_batch, b_batch].map(|own| own.iter().product::<usize>() == elements);
    let mut pairs = Vec::new();
    if own != [true; 2] {
        let (a, b) = (View::broadcast(a_batch, &batch), View::broadcast(b_batch, &batch));
        crate::ops::kernels::strided::Walk::new(&batch, &a, &b).each(|run| pairs.extend(run.pairs()));
    }
    Ok(Box::new(MatMul {
        gpu: gpu.clone(),
        m: rows,
        n,
        k,
        with_output: [walk(&batch, &of_y, &of_b)?, walk(&batch, &of_a, &of_y)?],
        batch: walk(&batch, &of_a, &of_b)?,
        pairs,
        own,
        alone: alone(),
        wanted: [site.wanted(0), site.wanted(1)],
    }))
}

impl MatMul {
    fn product<'a>(&'a self, sizes: [usize; 3], batch: &'a Walk) -> Product<'a> {
        Product { gpu: &self.gpu, sizes, alpha: 1.0, batch }
    }
}

impl Kernel<f32> for MatMul {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let (m, n, k) = (self.m, self.n, self.k);
        let (a, b) = (Matrix::rows(x.get(0), k), Matrix::rows(x.get(1), n));
        self.product([m, n, k], &self.batch).run(y, false, a, b);
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let (m, n, k) = (self.m, self.n, self.k);
        for (which, gradient) in d_x.iter_mut().enumerate() {
            let Some((d, add)) = gradient.target() else { continue };
            let d_matrix = Matrix::rows(d_y, n);
            if self.own[which] {
                match which {
                    0 => {
                        let b = Matrix::rows(x.get(1), n).t();
                        self.product([m, k, n], &self.with_output[0]).run(d, add, d_matrix, b);
                    }
                    _ => {
                        let a = Matrix::rows(x.get(0), k).t();
                        self.product([k, n, m], &self.with_output[1]).run(d, add, a, d_matrix);
                    }
                }
                continue;
            }
            // A matrix that several outputs share takes the sum, in the order of the pairs.
            if !add {
                maps::fill(&self.gpu, d, 0.0);
            }
            for (d_y, &(i, j)) in d_y.chunks_exact((m * n).max(1)).zip(&self.pairs) {
                let d_matrix = Matrix::rows(d_y, n);
                if which == 0 {
                    let b = Matrix::rows(&x.get(1)[j * k * n..][..k * n], n).t();
                    self.product([m, k, n], &self.alone).run(&mut d[i * m * k..][..m * k], true, d_matrix, b);
                } else {
                    let a = Matrix::rows(&x.get(0)[i * m * k..][..m * k], k).t();
                    self.product([k, n, m], &self.alone).run(&mut d[j * k * n..][..k * n], true, a, d_matrix);
                }
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }
}
