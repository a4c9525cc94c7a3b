//! Features of two series aligned in time.

use kd_runtime::Result;

use super::relations::total;
use super::{Given, make_room};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Channels of both series.
    pub channels: usize,
    /// Places of the student's and of the teacher's.
    pub lengths: [usize; 2],
    /// How soft the minimum is.
    pub gamma: f32,
    /// Whether the series' distances to themselves are taken off.
    pub divergence: bool,
    /// Whether all is divided by the sum of both lengths.
    pub normalize: bool,
}

/// What it keeps on a GPU: costs, minima, how the value changes with each cost, and values of samples.
#[derive(Default)]
pub struct Warps {
    costs: Buffer<f64>,
    minima: Buffer<f64>,
    flow: Buffer<f64>,
    values: Buffer<f64>,
}

impl Warps {
    /// As [`alignment`](crate::losses::soft_dtw::alignment), of the student's only tap; `add`: whether the value is
    /// added to what is there.
    pub fn alignment(
        &mut self,
        gpu: &Gpu,
        add: bool,
        [student, teacher]: [&[f32]; 2],
        form: Form,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let Form { channels, lengths: [n, m], gamma, divergence, normalize } = form;
        let (batch, over) = (student.len() / (channels * n), if normalize { n + m } else { 1 });
        let d = &mut *given.d_student[0];
        let whole = [n, n, m].map(|length| batch * channels * length);
        assert_eq!([student.len(), d.len(), teacher.len()], whole, "series of samples");
        let longest = n.max(m);
        make_room(gpu, &mut self.costs, batch * longest * longest)?;
        make_room(gpu, &mut self.minima, batch * (longest + 1) * (longest + 1))?;
        make_room(gpu, &mut self.flow, batch * n * longest)?;
        make_room(gpu, &mut self.values, batch)?;
        let Self { costs, minima, flow, values } = self;
        let rate = 2.0 / (batch * over) as f64;
        // To what, with what weight in the value, and with what rate in the gradient: both arguments are the student's
        // once.
        let warps = [(student, teacher, [n, m], 1.0, Some(rate)), (student, student, [n, n], -0.5, Some(-rate))];
        let last = (teacher, teacher, [m, m], -0.5, None);
        let warps = warps.into_iter().chain([last]).take(if divergence { 3 } else { 1 });
        for (i, (x, y, lengths, weight, rate)) in warps.enumerate() {
            let tell = |args: Args| args.number(channels).numbers(&lengths).flag(i > 0);
            let args = Args::none().read(x).read(y).write(costs.raw_mut()).write(minima.raw_mut());
            let args = args.write(if rate.is_some() { flow.raw_mut() } else { &mut [] }).write(values.raw_mut());
            // SAFETY: series_warp: a series of each length for each sample, tables for them, a number for each sample.
            unsafe { gpu.groups("series_warp", batch, &tell(args).float(gamma).float(weight)) };
            if let Some(rate) = rate {
                let args = tell(Args::none().read(x).read(y).read(flow.raw()).write(d)).number(x.len());
                // SAFETY: series_pull: series and tables as above, a gradient for the first.
                unsafe { gpu.each("series_pull", x.len(), &args.float(rate as f32)) };
            }
        }
        total(gpu, values, batch, batch * over, add, given);
        Ok(())
    }
}
