//! Pooling.

use alloc::vec::Vec;

use super::rules::{f32_input, of_types};
use super::window::{Axis, MOST_SPATIAL, Window, tap_rows};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::{Element, ElementType};

/// Most pads at an end, so that a small file cannot ask for endless work.
const MOST_PADS: usize = (1 << 16) - 1;

/// The output's shape. Refuses windows that lie in the pads alone.
fn infer_pool(window: &Window, x: &Input<'_>) -> Result<Vec<usize>, OpError> {
    let Some(spatial) = x.shape.get(2..) else {
        return Err(OpError::new("an input [N, C, …]", alloc::format!("shape {:?}", x.shape)));
    };
    let axes = window.resolve3(spatial, None)?;
    let axes = &axes[MOST_SPATIAL - spatial.len()..];
    let sound = |axis: &Axis| axis.pad_begin.max(axis.pad_end) <= MOST_PADS && axis.all_see_input();
    if let Some(axis) = axes.iter().find(|axis| !sound(axis)) {
        let found = alloc::format!("pads {} and {}, kernel {}", axis.pad_begin, axis.pad_end, axis.kernel);
        return Err(OpError::new("pads below 65536 and windows that each hold an element of the input", found));
    }
    Ok(x.shape[..2].iter().copied().chain(axes.iter().map(|axis| axis.output)).collect())
}

/// A pool over the planes of a batch.
struct Planes {
    axes: [Axis; MOST_SPATIAL],
    input: usize,
    output: usize,
}

impl Planes {
    fn new(window: &Window, shape: &[usize]) -> Result<Self, OpError> {
        let axes = window.resolve3(&shape[2..], None)?;
        let size = |of: fn(&Axis) -> usize| axes.iter().map(of).product();
        Ok(Self { axes, input: size(|axis| axis.input), output: size(|axis| axis.output) })
    }

    /// Calls `f` for every output with its input plane's number, its place on each axis and itself.
    fn each<T>(&self, y: &mut [T], f: impl Fn(usize, [usize; MOST_SPATIAL], &mut T)) {
        let [_, height, width] = self.axes.map(|axis| axis.output);
        let row = width.max(1);
        for (plane, y) in y.chunks_exact_mut(self.output.max(1)).enumerate() {
            for (i, y) in y.chunks_exact_mut(row).enumerate() {
                for (k, y) in y.iter_mut().enumerate() {
                    f(plane, [i / height, i % height, k], y);
                }
            }
        }
    }

    /// Folds the elements of a window, in row-major order, with their places in the input plane.
    fn fold<T: Copy, S>(&self, x: &[T], at: [usize; MOST_SPATIAL], mut state: S, f: impl Fn(S, usize, T) -> S) -> S {
        let [depth, height, width] = &self.axes;
        let (slices, z0) = depth.taps_of(at[0]);
        let (rows, y0) = height.taps_of(at[1]);
        let (columns, x0) = width.taps_of(at[2]);
        for i in 0..slices.len() {
            for j in 0..rows.len() {
                let row = ((z0 + i * depth.dilation) * height.input + y0 + j * height.dilation) * width.input;
                for k in 0..columns.len() {
                    let place = row + x0 + k * width.dilation;
                    state = f(state, place, x[place]);
                }
            }
        }
        state
    }

    /// Gives every output `first` and then folds the elements of its window into it, in row-major order.
    fn fold_rows<T: Copy>(&self, x: &[T], y: &mut [T], first: T, f: impl Fn(T, T) -> T) {
        y.fill(first);
        if y.is_empty() {
            return;
        }
        for (plane, y) in y.chunks_exact_mut(self.output).enumerate() {
            let x = &x[plane * self.input..][..self.input];
            tap_rows(&self.axes, x, y, |_, x, stride, y| match stride {
                1 => y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(*y, x)),
                _ => y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, &x)| *y = f(*y, x)),
            });
        }
    }

    /// Flat indices of the largest elements over the whole input; column-major within a plane if asked for.
    fn argmax<T: Number>(&self, x: &[T], y: &mut [i64], column_major: bool) {
        let [_, height, width] = self.axes.map(|axis| axis.input);
        self.each(y, |plane, at, y| {
            let x = &x[plane * self.input..][..self.input];
            let best = self.fold(x, at, None, |best: Option<(usize, T)>, place, x| match best {
                Some((_, most)) if !x.beats(most) => best,
                _ => Some((place, x)),
            });
            let place = best.map_or(0, |(place, _)| place);
            let place = if column_major {
                let (z, rest) = (place / (height * width), place % (height * width));
                (z * height * width) + rest % width * height + rest / width
            } else {
                place
            };
            *y = (plane * self.input + place) as i64;
        });
    }
}

/// What is compared.
trait Number: Element {
    /// Below or equal to all others.
    const LEAST: Self;
    /// Whether it is larger, or NaN.
    fn beats(self, other: Self) -> bool;
}

impl Number for f32 {
    const LEAST: Self = Self::NEG_INFINITY;
    fn beats(self, other: Self) -> bool {
        (self > other) | self.is_nan()
    }
}

impl Number for u8 {
    const LEAST: Self = 0;
    fn beats(self, other: Self) -> bool {
        self > other
    }
}

impl Number for i8 {
    const LEAST: Self = Self::MIN;
    fn beats(self, other: Self) -> bool {
        self > other
    }
}

fn eval_max<T: Number>(pool: &MaxPool, frame: &mut Frame<'_>) -> Result<(), OpError> {
    let x = frame.input(0);
    let planes = Planes::new(&pool.window, x.shape)?;
    let larger = |most: T, x: T| if x.beats(most) { x } else { most };
    planes.fold_rows::<T>(x.get(), frame.output(0).get(), T::LEAST, larger);
    if frame.output_count() > 1 {
        planes.argmax::<T>(x.get(), frame.output(1).get(), pool.storage_order == 1);
    }
    Ok(())
}

/// Largest element of each window of one to three axes; f32, u8, i8. NaN wins, and the first of equal elements in
/// row-major order. Second output: its flat index (i64) over the whole input. ONNX MaxPool.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// 0: row-major indices, 1: column-major.
    pub storage_order: i64,
}

impl MaxPool {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let storage_order = attrs.int_or("storage_order", 0)?;
        if !(0..=1).contains(&storage_order) {
            return Err(OpError::new("a storage_order of 0 or 1", storage_order));
        }
        Ok(Self { window: Window::read(attrs, true)?, storage_order })
    }
}

impl Operator for MaxPool {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("storage_order", self.storage_order)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = of_types(inputs, 0, &[ElementType::F32, ElementType::U8, ElementType::I8])?;
        let shape = infer_pool(&self.window, &x)?;
        Ok([x.element, ElementType::I64].map(|element| TensorType { element, shape: shape.clone() }).into())
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        match frame.input(0).element() {
            ElementType::U8 => eval_max::<u8>(self, frame),
            ElementType::I8 => eval_max::<i8>(self, frame),
            _ => eval_max::<f32>(self, frame),
        }
    }
}

/// Mean of each window of one to three axes; f32. What a last window of `ceil_mode` covers beyond the stated pads never
/// counts. ONNX AveragePool.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Whether padded elements count as zeros.
    pub count_include_pad: bool,
}

impl AveragePool {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let count_include_pad = attrs.flag("count_include_pad", false)?;
        Ok(Self { window: Window::read(attrs, true)?, count_include_pad })
    }
}

impl Operator for AveragePool {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("count_include_pad", i64::from(self.count_include_pad))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = f32_input(inputs, 0)?;
        TensorType::one(x.element, &infer_pool(&self.window, &x)?)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let planes = Planes::new(&self.window, x.shape)?;
        let (x, axes) = (x.get::<f32>(), &planes.axes);
        let y = frame.output(0).get::<f32>();
        planes.fold_rows(x, y, 0.0, |sum, x| sum + x);
        planes.each(y, |_, at, y| {
            let taps = |(axis, at): (&Axis, usize)| {
                if self.count_include_pad { axis.padded_taps_of(at) } else { axis.taps_of(at).0.len() }
            };
            *y /= axes.iter().zip(at).map(taps).product::<usize>() as f32;
        });
        Ok(())
    }
}

/// The output of a pool over all spatial axes, which become 1.
fn infer_global(inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
    let x = f32_input(inputs, 0)?;
    if x.shape.len() < 2 {
        return Err(OpError::new("an input [N, C, …]", alloc::format!("shape {:?}", x.shape)));
    }
    let mut shape = x.shape.to_vec();
    shape[2..].fill(1);
    TensorType::one(x.element, &shape)
}

/// Mean over all spatial axes, which become 1; f32. ONNX GlobalAveragePool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GlobalAveragePool;

impl GlobalAveragePool {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for GlobalAveragePool {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_global(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let plane: usize = x.shape[2..].iter().product();
        let (x, y) = (x.get::<f32>(), frame.output(0).get::<f32>());
        for (i, y) in y.iter_mut().enumerate() {
            *y = x[i * plane..][..plane].iter().sum::<f32>() / plane as f32;
        }
        Ok(())
    }
}

/// Largest element over all spatial axes, which become 1; NaN wins; f32. ONNX GlobalMaxPool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GlobalMaxPool;

impl GlobalMaxPool {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for GlobalMaxPool {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_global(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let plane: usize = x.shape[2..].iter().product();
        let (x, y) = (x.get::<f32>(), frame.output(0).get::<f32>());
        for (i, y) in y.iter_mut().enumerate() {
            let larger = |most: f32, &x: &f32| if x.beats(most) { x } else { most };
            *y = x[i * plane..][..plane].iter().fold(f32::LEAST, larger);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    fn counted(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| i as f32).collect())
    }

    fn window(kernel: &[usize], strides: &[usize], pads: &[usize]) -> Window {
        Window { kernel: kernel.to_vec(), strides: strides.to_vec(), pads: pads.to_vec(), ..Window::default() }
    }

    #[test]
    fn takes_the_largest_and_says_where() {
        let x = counted(&[1, 2, 3, 3]);
        let w = window(&[2, 2], &[1, 1], &[0, 0, 1, 0]);
        let y = eval(&MaxPool { window: w.clone(), storage_order: 0 }.into(), &[Some(&x)]).unwrap();
        assert_eq!(y[0].get::<f32>().unwrap(), [4., 5., 7., 8., 7., 8., 13., 14., 16., 17., 16., 17.]);
        assert_eq!(y[1].get::<i64>().unwrap(), [4, 5, 7, 8, 7, 8, 13, 14, 16, 17, 16, 17]);
        let y = eval(&MaxPool { window: w, storage_order: 1 }.into(), &[Some(&x)]).unwrap();
        assert_eq!(y[1].get::<i64>().unwrap(), [4, 7, 5, 8, 5, 8, 13, 16, 14, 17, 14, 17]);
    }

    #[test]
    fn keeps_nan_and_the_first_of_equals() {
        let op = MaxPool { window: window(&[3], &[], &[]), storage_order: 0 };
        let x = Tensor::from_vec(&[1, 3, 3], vec![1.0, f32::NAN, 2.0, 5.0, 5.0, 1.0, -1.0, -1.0, -1.0]);
        let y = eval(&op.into(), &[Some(&x)]).unwrap();
        assert!(matches!(y[0].get::<f32>().unwrap(), [nan, 5.0, -1.0] if nan.is_nan()));
        assert_eq!(y[1].get::<i64>().unwrap(), [1, 3, 6]);
        let op = MaxPool { window: window(&[2], &[2], &[0, 0]), storage_order: 0 };
        let y = eval(&op.into(), &[Some(&Tensor::from_vec(&[1, 1, 4], vec![-128_i8, -128, -3, 4]))]).unwrap();
        assert_eq!(y[0].get::<i8>().unwrap(), [-128, 4]);
    }

    #[test]
    fn averages_with_and_without_pads() {
        let x = counted(&[1, 1, 3]);
        let mut w = window(&[2], &[2], &[1, 1]);
        let mean = |w: &Window, count_include_pad| {
            let op = AveragePool { window: w.clone(), count_include_pad };
            eval(&op.into(), &[Some(&x)]).unwrap()[0].get::<f32>().unwrap().to_vec()
        };
        assert_eq!(mean(&w, false), [0.0, 1.5]);
        assert_eq!(mean(&w, true), [0.0, 1.5]);
        w = Window { ceil_mode: true, ..window(&[3], &[2], &[1, 0]) };
        assert_eq!(mean(&w, false), [0.5, 1.5]);
        assert_eq!(mean(&w, true), [1.0 / 3.0, 1.5]);
        let y = eval(&GlobalAveragePool.into(), &[Some(&counted(&[1, 2, 2, 2]))]).unwrap();
        assert_eq!((y[0].shape(), y[0].get::<f32>().unwrap()), (&[1, 2, 1, 1][..], &[1.5, 5.5][..]));
    }

    #[test]
    fn takes_the_largest_of_each_plane() {
        let x = Tensor::from_vec(&[1, 2, 3], vec![-3.0_f32, -1.0, -2.0, 0.0, f32::NAN, 7.0]);
        let y = eval(&GlobalMaxPool.into(), &[Some(&x)]).unwrap();
        assert_eq!(y[0].shape(), [1, 2, 1]);
        assert!(matches!(y[0].get::<f32>().unwrap(), [-1.0, nan] if nan.is_nan()));
    }

    #[test]
    fn refuses_windows_over_pads_alone() {
        let x = counted(&[1, 1, 3]);
        for pads in [[2, 0], [0, 2], [1 << 31, 0], [0, usize::MAX]] {
            let op = MaxPool { window: window(&[2], &[], &pads), storage_order: 0 };
            assert!(eval(&op.into(), &[Some(&x)]).is_err(), "{pads:?}");
        }
        let dilated = Window { dilations: vec![2], ..window(&[2], &[], &[1, 1]) };
        let op = AveragePool { window: dilated, count_include_pad: false };
        assert!(eval(&op.clone().into(), &[Some(&counted(&[1, 1, 1]))]).is_err());
        assert!(eval(&op.into(), &[Some(&x)]).is_ok());
    }
}
