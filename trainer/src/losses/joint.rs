//! What methods of features share: pairs of taps, brought to common places, with a value and a gradient for each pair.

use std::cell::RefCell;

use kd_runtime::{Refusal, Result};

use super::maps::{Map, average_pool, average_pool_back};
use super::{Batch, Loss, Tap};
use crate::exec::Parameter;
use crate::gpu::Gpu;
use crate::gpu::losses::joint::Kept;
use crate::gpu::losses::{Given, Kernel, Seen};

/// How a side of a pair lies, and how it is compared.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// A sample as its tap has it.
    pub map: Map,
    /// Whether that is `[L, D]`, a row a token: turned to channels first.
    pub tokens: bool,
    /// A sample as it is compared: averaged.
    pub to: Map,
}

impl Way {
    /// Channels first before and after.
    pub fn averaged(map: Map, to: Map) -> Self {
        Self { map, tokens: false, to }
    }

    /// Whether it is compared as it lies.
    pub fn is_plain(&self) -> bool {
        !self.tokens && self.map == self.to
    }
}

/// One side of a pair.
struct Side {
    way: Way,
    /// Turned, then averaged; empty where neither is done.
    turned: Vec<f32>,
    pooled: Vec<f32>,
}

impl Side {
    fn new(map: Map, tokens: bool, to: Map) -> Self {
        Self { way: Way { map, tokens, to }, turned: Vec::new(), pooled: Vec::new() }
    }

    /// Turns and averages `batch` samples.
    fn load(&mut self, x: &[f32]) {
        let Way { map, tokens, to } = self.way;
        if tokens {
            self.turned.resize(x.len(), 0.0);
            turn(x, &mut self.turned, map.width, map.channels);
        }
        if map != to {
            let x = if tokens { &self.turned } else { x };
            self.pooled.resize(x.len() / map.elements() * to.elements(), 0.0);
            average_pool(x, map, to, &mut self.pooled);
        }
    }

    /// The samples as they are compared.
    fn loaded<'a>(&'a self, x: &'a [f32]) -> &'a [f32] {
        if self.way.map != self.way.to {
            &self.pooled
        } else if self.way.tokens {
            &self.turned
        } else {
            x
        }
    }

    /// From the gradient by the compared samples to that by the samples.
    fn back(&mut self, d_compared: &[f32], d: &mut [f32]) {
        let Way { map, tokens, to } = self.way;
        if !tokens {
            return average_pool_back(d_compared, map, to, d);
        }
        if map != to {
            average_pool_back(d_compared, map, to, &mut self.turned);
        } else {
            self.turned.copy_from_slice(d_compared);
        }
        turn(&self.turned, d, map.channels, map.width);
    }
}

/// Turns each `[rows, columns]` into `[columns, rows]`.
fn turn(x: &[f32], y: &mut [f32], rows: usize, columns: usize) {
    let size = (rows * columns).max(1);
    for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
        for (i, row) in x.chunks_exact(columns).enumerate() {
            row.iter().enumerate().for_each(|(j, &x)| y[j * rows + i] = x);
        }
    }
}

/// Two values that are compared.
pub struct Joint {
    student: Side,
    teacher: Side,
    d_compared: Vec<f32>,
}

/// How a pair is compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// The place of the pair among all.
    pub pair: usize,
    /// Samples.
    pub batch: usize,
    /// Of a sample of the student.
    pub student: Map,
    /// Of a sample of the teacher.
    pub teacher: Map,
}

impl Joint {
    /// Both at the smaller of both resolutions along each axis: the larger map is averaged.
    pub fn common(student: &Tap, teacher: &Tap, tokens: bool) -> Result<Self> {
        Self::common_within(student, teacher, tokens, usize::MAX)
    }

    /// The same, averaged further to at most so many places: an axis below their root stays, and the other takes what it leaves.
    pub fn common_within(student: &Tap, teacher: &Tap, tokens: bool, most: usize) -> Result<Self> {
        let (s, t) = (map(student, tokens)?, map(teacher, tokens)?);
        let (height, width) = within(s.height.min(t.height), s.width.min(t.width), most);
        Ok(Self::resized(s, t, tokens, [s.resized(height, width), t.resized(height, width)]))
    }

    /// Each by its last axis alone (time), averaged over the others and to at most `longest` places; of one length if
    /// `equal`. Refuses what has no two places in time.
    pub fn series(student: &Tap, teacher: &Tap, tokens: bool, longest: usize, equal: bool) -> Result<Self> {
        let (s, t) = (map(student, tokens)?, map(teacher, tokens)?);
        let mut lengths = [s.width.min(longest), t.width.min(longest)];
        if equal {
            lengths = [lengths[0].min(lengths[1]); 2];
        }
        for (tap, length) in [student, teacher].into_iter().zip(lengths) {
            if length < 2 {
                let action = "name taps before the mean over time";
                return Err(Refusal::new(format!("tap `{}`", tap.name), "at least 2 places in time", length, action));
            }
        }
        Ok(Self::resized(s, t, tokens, [s.resized(1, lengths[0]), t.resized(1, lengths[1])]))
    }

    fn resized(student: Map, teacher: Map, tokens: bool, to: [Map; 2]) -> Self {
        let (student, teacher) = (Side::new(student, tokens, to[0]), Side::new(teacher, tokens, to[1]));
        Self { student, teacher, d_compared: Vec::new() }
    }

    /// Samples of both as they are compared.
    pub fn maps(&self) -> (Map, Map) {
        (self.student.way.to, self.teacher.way.to)
    }

    /// How the student's side is compared, and how the teacher's.
    pub fn ways(&self) -> [Way; 2] {
        [self.student.way, self.teacher.way]
    }

    /// Refuses values of another shape than the taps had when the method was built.
    pub fn check(&self, names: [&str; 2], values: [&[f32]; 2], batch: &Batch<'_>) -> Result<()> {
        check(names[0], values[0], batch, self.student.way.map)?;
        check(names[1], values[1], batch, self.teacher.way.map)
    }

    /// Turns and averages both sides of a batch.
    pub fn load(&mut self, student: &[f32], teacher: &[f32]) {
        self.student.load(student);
        self.teacher.load(teacher);
    }

    /// Both sides as they are compared, of the batch that was loaded.
    pub fn loaded<'a>(&'a self, student: &'a [f32], teacher: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        (self.student.loaded(student), self.teacher.loaded(teacher))
    }

    /// From the gradient by the student's side as it is compared to that by its tap.
    pub fn back(&mut self, d_compared: &[f32], d_student: &mut [f32]) {
        if self.student.way.is_plain() {
            d_student.copy_from_slice(d_compared);
        } else {
            self.student.back(d_compared, d_student);
        }
    }

    /// Calls `f` with both as they are compared and room for the student's gradient, which then becomes `d_student`.
    pub fn compare(
        &mut self,
        student: &[f32],
        teacher: &[f32],
        d_student: &mut [f32],
        f: impl FnOnce(&[f32], &[f32], &mut [f32]) -> f32,
    ) -> f32 {
        self.load(student, teacher);
        let Self { student: ours, teacher: theirs, d_compared } = self;
        let (s, t) = (ours.loaded(student), theirs.loaded(teacher));
        if ours.way.is_plain() {
            return f(s, t, d_student);
        }
        d_compared.resize(s.len(), 0.0);
        let value = f(s, t, d_compared);
        ours.back(d_compared, d_student);
        value
    }
}

/// Sizes of a map of at most `most` places.
fn within(height: usize, width: usize, most: usize) -> (usize, usize) {
    if height.saturating_mul(width) <= most {
        return (height, width);
    }
    let root = most.isqrt();
    let rows = height.min(if width <= root { most / width } else { root });
    (rows, width.min(most / rows))
}

/// How a tap lies; refused if that is not known.
pub fn map(tap: &Tap, tokens: bool) -> Result<Map> {
    let map = if tokens { Map::of_tokens(&tap.shape) } else { Map::of(&tap.shape) };
    map.filter(|map| map.elements() > 0).ok_or_else(|| {
        let expected = if tokens { "tokens [L, D]" } else { "a map [C, H, W], a series [C, T] or a vector [F]" };
        Refusal::new(format!("tap `{}`", tap.name), expected, format!("{:?}", tap.shape), "name another tap")
    })
}

/// What a GPU does of a pair, both sides as they are compared: it gives the gradient by the student's as that of the
/// only tap, and adds the value to that of the pairs before.
pub type OnGpu = Box<dyn Fn(Compared, &Gpu, [&[f32]; 2], &mut Given<'_>) -> Result<()>>;

/// A loss that is the sum of what its pairs give.
pub struct PairLoss<F> {
    student: Vec<String>,
    teacher: Vec<String>,
    joints: Vec<Joint>,
    compare: F,
    on_gpu: Option<OnGpu>,
    kept: RefCell<Kept>,
}

impl<F> PairLoss<F>
where
    F: FnMut(Compared, &[f32], &[f32], &mut [f32]) -> f32 + 'static,
{
    /// `compare` gives the value of a pair and overwrites the gradient by its student's side; `on_gpu` is what a GPU does, if
    /// anything.
    pub fn boxed(taps: &[(Tap, Tap)], joints: Vec<Joint>, on_gpu: Option<OnGpu>, compare: F) -> Box<dyn Loss> {
        let (student, teacher) = taps.iter().map(|(s, t)| (s.name.clone(), t.name.clone())).unzip();
        Box::new(Self { student, teacher, joints, compare, on_gpu, kept: RefCell::default() })
    }
}

impl<F> PairLoss<F> {
    /// What is compared of a pair, whose values are of the shapes that the method was built for.
    fn compared(&self, pair: usize, values: [&[f32]; 2], batch: &Batch<'_>) -> Result<Compared> {
        let joint = &self.joints[pair];
        joint.check([&self.student[pair], &self.teacher[pair]], values, batch)?;
        let (student, teacher) = joint.maps();
        Ok(Compared { pair, batch: batch.size, student, teacher })
    }
}

impl<F> Kernel for PairLoss<F> {
    fn value(&self, seen: &Seen<'_>, given: &mut Given<'_>) -> Result<()> {
        let (gpu, mut kept) = (seen.gpu, self.kept.borrow_mut());
        for (pair, joint) in self.joints.iter().enumerate() {
            let values = [seen.student[pair], seen.teacher[pair]];
            let compared = self.compared(pair, values, seen.batch)?;
            kept.compare(gpu, joint.ways(), values, (pair, false), given, |sides, given| {
                self.on_gpu.iter().try_for_each(|on_gpu| on_gpu(compared, gpu, sides, given))
            })?;
        }
        Ok(())
    }
}

impl<F> Loss for PairLoss<F>
where
    F: FnMut(Compared, &[f32], &[f32], &mut [f32]) -> f32,
{
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn on_gpu(&self) -> Option<&dyn Kernel> {
        self.on_gpu.as_ref().map(|_| self as &dyn Kernel)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let mut value = 0.0;
        for pair in 0..self.joints.len() {
            let compared = self.compared(pair, [student[pair], teacher[pair]], batch)?;
            let (joint, compare) = (&mut self.joints[pair], &mut self.compare);
            value += joint.compare(student[pair], teacher[pair], d_student[pair], |s, t, d| compare(compared, s, t, d));
        }
        Ok(value)
    }
}

/// Refuses values of another shape than the tap had when the method was built.
pub fn check(tap: &str, values: &[f32], batch: &Batch<'_>, map: Map) -> Result<()> {
    let columns = super::columns(tap, values, batch)?;
    if columns == map.elements() {
        return Ok(());
    }
    let expected = format!("{} values a sample", map.elements());
    Err(Refusal::new(format!("tap `{tap}`"), expected, columns, "train the network that the method was built for"))
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn maps_within_a_bound_stay_and_others_keep_what_they_can() {
        assert_eq!(within(8, 16, 128), (8, 16));
        assert_eq!(within(112, 112, 128), (11, 11));
        assert_eq!([within(4, 100, 128), within(100, 4, 128)], [(4, 32), (32, 4)]);
        assert_eq!([within(1, 300, 128), within(300, 1, 128)], [(1, 128), (128, 1)]);
        assert_eq!([within(5, 5, 2), within(5, 5, 7), within(40, 40, usize::MAX)], [(1, 2), (2, 3), (40, 40)]);
        for (height, width, most) in (1..30).flat_map(|h| (1..30).flat_map(move |w| (2..40).map(move |m| (h, w, m)))) {
            let (h, w) = within(height, width, most);
            assert!(
                h * w <= most
                    && h * w >= most.min(height * width).div_ceil(2)
                    && (1..=height).contains(&h)
                    && (1..=width).contains(&w),
                "{height} {width} {most}"
            );
        }
    }
}
