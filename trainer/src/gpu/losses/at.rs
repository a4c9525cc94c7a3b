//! Attention transfer.

use kd_runtime::Result;

use super::{Given, make_room};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;

/// What it keeps on a GPU: attention of the student and of the teacher.
#[derive(Default)]
pub struct Attention([Buffer<f32>; 2]);

impl Attention {
    /// As [`attention_distance`](crate::losses::at::attention_distance), of the student's only tap; `add`: whether the
    /// value is added to what is there.
    pub fn distance(
        &mut self,
        gpu: &Gpu,
        add: bool,
        sides: [&[f32]; 2],
        (channels, places): ([usize; 2], usize),
        (power, paper): (usize, bool),
        given: &mut Given<'_>,
    ) -> Result<()> {
        let d = &mut *given.d_student[0];
        let batch = sides[0].len() / (channels[0] * places);
        assert_eq!(sides.map(<[f32]>::len), channels.map(|channels| batch * channels * places), "maps of samples");
        assert!(d.len() == sides[0].len() && given.sums.len() >= batch, "a gradient, and a sum for each sample");
        let tell = |args: Args, n: usize, channels: usize| args.numbers(&[n, channels, places, power]).flag(paper);
        for ((kept, x), channels) in self.0.iter_mut().zip(sides).zip(channels) {
            make_room(gpu, kept, batch * places)?;
            let args = tell(Args::none().read(x).write(kept.raw_mut()), batch * places, channels);
            // SAFETY: attention_sum: maps of samples, a number for each place.
            unsafe { gpu.each("attention_sum", batch * places, &args) };
        }
        let [own, taught] = &mut self.0;
        let over = if paper { batch } else { batch * places };
        let factor = 1.0 / over as f64;
        let scale = if paper { factor } else { 2.0 * factor };
        let args = Args::none().write(own.raw_mut()).read(taught.raw()).write(given.sums);
        let args = tell(args, batch, channels[0]).float(scale as f32);
        // SAFETY: attention_compare: a number for each place, a sum for each sample.
        unsafe { gpu.groups("attention_compare", batch, &args) };
        let (n, args) = (d.len(), Args::none().read(sides[0]).read(own.raw()));
        // SAFETY: attention_back: maps of samples, a number for each place.
        unsafe { gpu.each("attention_back", n, &tell(args.write(d), n, channels[0])) };
        given.total(gpu, batch, factor as f32, add);
        Ok(())
    }
}
