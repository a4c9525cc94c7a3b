//! Walks over boxes of elements of two tensors at once: what transposing, slicing, padding, joining and reducing share.

/// A strided view: element `index` at `offset + Σ index[i] * strides[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Of the first element.
    pub offset: isize,
    /// Of each axis; 0 repeats.
    pub strides: Vec<isize>,
}

/// Strides of a dense row-major tensor.
pub fn dense(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}

impl View {
    /// The whole of a dense tensor.
    pub fn dense(shape: &[usize]) -> Self {
        Self { offset: 0, strides: dense(shape) }
    }

    /// A dense tensor stretched to `to` by broadcasting.
    pub fn broadcast(shape: &[usize], to: &[usize]) -> Self {
        let own = dense(shape);
        let lead = to.len() - shape.len();
        let strides = (0..to.len()).map(|i| if i < lead || shape[i - lead] == 1 { 0 } else { own[i - lead] }).collect();
        Self { offset: 0, strides }
    }
}

/// A walk over a box `shape` of two views.
#[derive(Clone, Debug)]
pub struct Walk {
    shape: Vec<usize>,
    a: View,
    b: View,
    index: Vec<usize>,
}

/// A run of the innermost axis: `len` pairs, the first at `a` and `b`, the next at `a + a_step` and `b + b_step`.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Place in the first tensor.
    pub a: usize,
    /// Its step.
    pub a_step: isize,
    /// Place in the second tensor.
    pub b: usize,
    /// Its step.
    pub b_step: isize,
    /// Pairs.
    pub len: usize,
}

impl Run {
    /// The pairs of places.
    pub fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        let at = |start: usize, step: isize, i: usize| (start as isize + step * i as isize) as usize;
        (0..self.len).map(move |i| (at(self.a, self.a_step, i), at(self.b, self.b_step, i)))
    }

    /// Whether both are dense.
    pub fn is_dense(&self) -> bool {
        self.a_step == 1 && self.b_step == 1
    }
}

impl Walk {
    /// A walk over `shape`; neighbouring axes that are one in both views are joined.
    pub fn new(shape: &[usize], a: &View, b: &View) -> Self {
        let mut sizes: Vec<usize> = Vec::new();
        let (mut sa, mut sb): (Vec<isize>, Vec<isize>) = (Vec::new(), Vec::new());
        for (i, &n) in shape.iter().enumerate() {
            if n == 1 {
                continue;
            }
            let (x, y) = (a.strides[i], b.strides[i]);
            match (sizes.last_mut(), sa.last_mut(), sb.last_mut()) {
                (Some(size), Some(px), Some(py)) if *px == x * n as isize && *py == y * n as isize => {
                    *size *= n;
                    (*px, *py) = (x, y);
                }
                _ => {
                    sizes.push(n);
                    sa.push(x);
                    sb.push(y);
                }
            }
        }
        let index = vec![0; sizes.len()];
        Self {
            shape: sizes,
            a: View { offset: a.offset, strides: sa },
            b: View { offset: b.offset, strides: sb },
            index,
        }
    }

    /// Calls `f` for each run, in row-major order of the box.
    pub fn each(&mut self, mut f: impl FnMut(Run)) {
        if self.shape.contains(&0) {
            return;
        }
        let Some((&len, outer)) = self.shape.split_last() else {
            return f(Run { a: self.a.offset as usize, a_step: 1, b: self.b.offset as usize, b_step: 1, len: 1 });
        };
        let last = outer.len();
        let (a_step, b_step) = (self.a.strides[last], self.b.strides[last]);
        self.index.fill(0);
        let (mut a, mut b) = (self.a.offset, self.b.offset);
        loop {
            f(Run { a: a as usize, a_step, b: b as usize, b_step, len });
            let mut axis = last;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                self.index[axis] += 1;
                a += self.a.strides[axis];
                b += self.b.strides[axis];
                if self.index[axis] < self.shape[axis] {
                    break;
                }
                let n = self.shape[axis] as isize;
                a -= n * self.a.strides[axis];
                b -= n * self.b.strides[axis];
                self.index[axis] = 0;
            }
        }
    }
}
