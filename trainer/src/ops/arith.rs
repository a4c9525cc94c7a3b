//! Element-wise arithmetic with broadcasting; the gradient of a stretched input is summed back to its shape.

use kd_runtime::ops;

use super::kernels::pointwise;
use super::kernels::strided::{View, Walk};
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
}

/// How an input lies in the output.
#[derive(Clone, Debug)]
enum Fit {
    /// Element for element.
    Same,
    /// Element `(i / inner) % mid` of output element i: a scalar, a channel's bias, a row.
    Cycle { mid: usize, inner: usize },
    /// Anything else: the element of each output element.
    Table(Vec<u32>),
}

struct Arith {
    kind: Kind,
    fits: [Fit; 2],
    wanted: [bool; 2],
}

/// The kernel of an Add node.
pub fn add<T: Real>(_op: &ops::arith::Add, site: &Site<'_>) -> Built<T> {
    Ok(build(Kind::Add, site))
}

/// The kernel of a Sub node.
pub fn sub<T: Real>(_op: &ops::arith::Sub, site: &Site<'_>) -> Built<T> {
    Ok(build(Kind::Sub, site))
}

/// The kernel of a Mul node.
pub fn mul<T: Real>(_op: &ops::arith::Mul, site: &Site<'_>) -> Built<T> {
    Ok(build(Kind::Mul, site))
}

/// The kernel of a Div node.
pub fn div<T: Real>(_op: &ops::arith::Div, site: &Site<'_>) -> Built<T> {
    Ok(build(Kind::Div, site))
}

fn build<T: Real>(kind: Kind, site: &Site<'_>) -> Box<dyn Kernel<T>> {
    let fits = [fit(site.shape(0), site.output), fit(site.shape(1), site.output)];
    Box::new(Arith { kind, fits, wanted: [site.wanted(0), site.wanted(1)] })
}

fn fit(shape: &[usize], output: &[usize]) -> Fit {
    let lead = output.len() - shape.len();
    if shape.iter().product::<usize>() == output.iter().product::<usize>() {
        return Fit::Same;
    }
    let full: Vec<usize> = std::iter::repeat_n(1, lead).chain(shape.iter().copied()).collect();
    let first = full.iter().position(|&n| n != 1).unwrap_or(full.len());
    let last = full.iter().rposition(|&n| n != 1).map_or(first, |i| i + 1);
    if full[first..last] == output[first..last] {
        return Fit::Cycle { mid: full[first..last].iter().product(), inner: output[last..].iter().product() };
    }
    let mut table = vec![0; output.iter().product()];
    Walk::new(output, &View::dense(output), &View::broadcast(shape, output)).each(|run| {
        run.pairs().for_each(|(i, j)| table[i] = j as u32);
    });
    Fit::Table(table)
}

/// Elements of an output piece, whole cycles or whole runs.
fn piece(mid: usize, inner: usize) -> usize {
    let cycle = mid * inner;
    cycle * (pointwise::PIECE / cycle).max(1)
}

/// `y = f(y, x)` with x stretched over y.
fn apply<T: Real>(fit: &Fit, y: &mut [T], x: &[T], f: impl Fn(T, T) -> T + Sync + Copy) {
    match fit {
        Fit::Same => pointwise::update_with(y, x, f),
        Fit::Cycle { mid: 1, .. } => pointwise::update(y, move |y| f(y, x[0])),
        Fit::Cycle { inner: 1, mid } => threads::chunks(y, piece(*mid, 1), |_, y| {
            for y in y.chunks_exact_mut(*mid) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(*y, x));
            }
        }),
        Fit::Cycle { mid, inner } => threads::chunks(y, piece(*mid, *inner), |_, y| {
            for (y, &x) in y.chunks_exact_mut(*inner).zip(x.iter().cycle()) {
                y.iter_mut().for_each(|y| *y = f(*y, x));
            }
        }),
        Fit::Table(table) => y.iter_mut().zip(table).for_each(|(y, &j)| *y = f(*y, x[j as usize])),
    }
}

/// Element of an input that output element i sees.
#[inline]
fn place(fit: &Fit, i: usize) -> usize {
    match fit {
        Fit::Same => i,
        Fit::Cycle { mid, inner } => i / inner % mid,
        Fit::Table(table) => table[i] as usize,
    }
}

/// Sums `g(i)` over the output elements i that see each element of an input of this fit; in order.
fn reduce<T: Real>(fit: &Fit, d: &mut [T], add: bool, outputs: usize, g: impl Fn(usize) -> T + Sync) {
    match fit {
        Fit::Same => threads::chunks(d, pointwise::PIECE, |piece, d| {
            for (i, d) in d.iter_mut().enumerate() {
                let value = g(piece * pointwise::PIECE + i);
                *d = if add { *d + value } else { value };
            }
        }),
        Fit::Cycle { mid, inner } => threads::chunks(d, 1, |j, d| {
            let mut sum = 0.0;
            for start in (j * *inner..outputs).step_by(*mid * *inner) {
                let mut own = T::ZERO;
                for i in start..start + *inner {
                    own += g(i);
                }
                sum += own.to_f64();
            }
            d[0] = if add { d[0] + T::from_f64(sum) } else { T::from_f64(sum) };
        }),
        Fit::Table(table) => {
            if !add {
                d.fill(T::ZERO);
            }
            table.iter().enumerate().for_each(|(i, &j)| d[j as usize] += g(i));
        }
    }
}

impl Arith {
    fn run<T: Real>(&self, y: &mut [T], b: &[T]) {
        let fit = &self.fits[1];
        match self.kind {
            Kind::Add => apply(fit, y, b, |y, b| y + b),
            Kind::Sub => apply(fit, y, b, |y, b| y - b),
            Kind::Mul => apply(fit, y, b, |y, b| y * b),
            Kind::Div => apply(fit, y, b, |y, b| y / b),
        }
    }

    /// The gradient of input `which`: `d_y` times the derivative by it.
    fn gradient<T: Real>(&self, which: usize, [a, b]: [&[T]; 2], d_y: &[T], d: &mut [T], add: bool) {
        let kind = self.kind;
        if kind == Kind::Add || (kind == Kind::Sub && which == 0) {
            if matches!(self.fits[which], Fit::Same) {
                return pointwise::copy(d, add, d_y);
            }
            return reduce(&self.fits[which], d, add, d_y.len(), |i| d_y[i]);
        }
        let at_a = |i: usize| a[place(&self.fits[0], i)];
        let at_b = |i: usize| b[place(&self.fits[1], i)];
        let n = d_y.len();
        let own = &self.fits[which];
        match (kind, which) {
            (Kind::Sub, _) => reduce(own, d, add, n, |i| -d_y[i]),
            (Kind::Mul, 0) => reduce(own, d, add, n, |i| d_y[i] * at_b(i)),
            (Kind::Mul, _) => reduce(own, d, add, n, |i| d_y[i] * at_a(i)),
            (_, 0) => reduce(own, d, add, n, |i| d_y[i] / at_b(i)),
            (..) => reduce(own, d, add, n, |i| {
                let b = at_b(i);
                -d_y[i] * at_a(i) / (b * b)
            }),
        }
    }
}

impl<T: Real> Kernel<T> for Arith {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        match &self.fits[0] {
            Fit::Same => pointwise::copy(y, false, x.get(0)),
            fit => apply(fit, y, x.get(0), |_, a| a),
        }
        self.run(y, x.get(1));
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        for (which, gradient) in d_x.iter_mut().enumerate() {
            if let Some((d, add)) = gradient.target() {
                self.gradient(which, [x.get(0), x.get(1)], d_y, d, add);
            }
        }
    }

    fn keeps(&self) -> Keeps {
        let [a, b] = self.wanted;
        match self.kind {
            Kind::Add | Kind::Sub => Keeps::NOTHING,
            Kind::Mul => Keeps::inputs(&[(0, b), (1, a)]),
            Kind::Div => Keeps::inputs(&[(0, b), (1, a || b)]),
        }
    }

    fn in_place(&self) -> bool {
        self.kind == Kind::Add && matches!(self.fits[0], Fit::Same)
    }

    fn forward_in_place(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        self.run(y, x.get(1));
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d: &mut [T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        if let Some((d_b, add)) = d_x[1].target() {
            self.gradient(1, [&[], &[]], d, d_b, add);
        }
    }
}
