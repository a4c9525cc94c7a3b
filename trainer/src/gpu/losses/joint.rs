//! Pairs of taps, brought to common places.

use kd_runtime::Result;

use super::{Given, make_room};
use crate::gpu::{Args, Gpu};
use crate::losses::joint::Way;
use crate::ops::kernels::buffer::Buffer;

/// What a pair keeps on a GPU.
#[derive(Default)]
pub struct Kept {
    /// The student's and the teacher's side as they are compared; whatever is there of one that is compared as it lies.
    sides: [Buffer<f32>; 2],
    d_compared: Buffer<f32>,
}

impl Way {
    /// Elements of so many elements of samples as they are compared.
    fn compared(&self, elements: usize) -> usize {
        elements / self.map.elements() * self.to.elements()
    }

    fn tell(&self, args: Args) -> Args {
        let Self { map, tokens, to } = *self;
        let strides = if tokens { [1, 0, map.channels] } else { [map.places(), map.width, 1] };
        let args = args.numbers(&[map.height, map.width, to.height, to.width, map.channels, map.elements()]);
        args.numbers(&strides)
    }

    /// Queues what turns and averages values.
    pub fn load(&self, gpu: &Gpu, x: &[f32], y: &mut [f32]) {
        let elements = y.len();
        let is_whole = x.len().is_multiple_of(self.map.elements());
        assert!(is_whole && elements == self.compared(x.len()), "samples of these maps");
        let args = self.tell(Args::none().read(x).write(y).number(elements));
        // SAFETY: joint_load: samples of these maps.
        unsafe { gpu.each("joint_load", elements, &args) };
    }

    /// Queues the way back of a gradient; `add`: whether it is added to what is there.
    pub fn back(&self, gpu: &Gpu, d_compared: &[f32], d: &mut [f32], add: bool) {
        let elements = d.len();
        let is_whole = elements.is_multiple_of(self.map.elements());
        assert!(is_whole && d_compared.len() == self.compared(elements), "samples of these maps");
        let args = self.tell(Args::none().read(d_compared).write(d).number(elements)).flag(add);
        // SAFETY: joint_back: samples of these maps.
        unsafe { gpu.each("joint_back", elements, &args) };
    }
}

impl Kept {
    /// As [`load`](crate::losses::joint::Joint::load).
    pub fn load(&mut self, gpu: &Gpu, ways: [Way; 2], values: [&[f32]; 2]) -> Result<()> {
        for ((kept, way), x) in self.sides.iter_mut().zip(ways).zip(values) {
            if !way.is_plain() {
                let len = way.compared(x.len());
                make_room(gpu, kept, len)?;
                way.load(gpu, x, &mut kept.raw_mut()[..len]);
            }
        }
        Ok(())
    }

    /// As [`loaded`](crate::losses::joint::Joint::loaded).
    pub fn loaded<'a>(&'a self, ways: [Way; 2], values: [&'a [f32]; 2]) -> [&'a [f32]; 2] {
        [0, 1].map(|i| loaded(&self.sides[i], ways[i], values[i]))
    }

    /// As [`compare`](crate::losses::joint::Joint::compare): `f` gives the gradient as that of the only tap, which then
    /// becomes that of the student's tap `tap`, or is added to it where its side is not compared as it lies.
    pub fn compare(
        &mut self,
        gpu: &Gpu,
        ways: [Way; 2],
        values: [&[f32]; 2],
        (tap, add): (usize, bool),
        given: &mut Given<'_>,
        f: impl FnOnce([&[f32]; 2], &mut Given<'_>) -> Result<()>,
    ) -> Result<()> {
        self.load(gpu, ways, values)?;
        let (kept, d_compared) = (&self.sides, &mut self.d_compared);
        let sides = [0, 1].map(|i| loaded(&kept[i], ways[i], values[i]));
        let d = &mut *given.d_student[tap];
        let is_plain = ways[0].is_plain();
        let compared = if is_plain {
            &mut *d
        } else {
            make_room(gpu, d_compared, sides[0].len())?;
            &mut d_compared.raw_mut()[..sides[0].len()]
        };
        f(sides, &mut Given { d_student: &mut [compared], sums: &mut *given.sums, value: &mut *given.value })?;
        if !is_plain {
            ways[0].back(gpu, &d_compared.raw()[..sides[0].len()], d, add);
        }
        Ok(())
    }
}

fn loaded<'a>(kept: &'a Buffer<f32>, way: Way, x: &'a [f32]) -> &'a [f32] {
    if way.is_plain() { x } else { &kept.raw()[..way.compared(x.len())] }
}
