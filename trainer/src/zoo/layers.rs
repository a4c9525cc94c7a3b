//! What architectures are made of: each call adds a layer behind the value that the net ends in, with weights of zero.

use kd_runtime::backend::available_bytes;
use kd_runtime::error::Exit;
use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::window::Window;
use kd_runtime::ops::{self, Op};
use kd_runtime::{Refusal, Result};

use super::Site;
use crate::options::Options;

/// The most parameters of a network.
const MOST_PARAMETERS: usize = 1 << 30;
/// The largest factor of channels.
const MOST_WIDTH: f64 = 64.0;
/// So few parameters fit into every machine.
const FEW_PARAMETERS: usize = 1 << 22;
/// What a parameter takes at least while it is trained: in the graph, in the executor, and its gradient.
const BYTES_PER_PARAMETER: usize = 12;

/// A value of the net with its shape for one sample.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The value.
    pub id: ValueId,
    /// `[C, H, W]`, `[C, T]` or `[F]`.
    pub shape: Vec<usize>,
}

/// A network that grows.
pub struct Net {
    graph: Graph,
    /// What it ends in.
    pub tail: Tail,
    parameters: usize,
}

/// Window and connections of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Output channels.
    pub channels: usize,
    /// Taps along each axis (the last one for series).
    pub kernel: [usize; 2],
    /// Step along each axis.
    pub stride: [usize; 2],
    /// Distance between taps along each axis.
    pub dilation: usize,
    /// Groups of channels; `usize::MAX` for one a channel.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Conv {
    /// A square one without bias.
    pub fn square(channels: usize, kernel: usize, stride: usize) -> Self {
        Self { channels, kernel: [kernel; 2], stride: [stride; 2], dilation: 1, groups: 1, bias: false }
    }

    /// One tap.
    pub fn pointwise(channels: usize) -> Self {
        Self::square(channels, 1, 1)
    }
}

impl Net {
    /// A net of only an input `x`.
    pub fn new(name: &str, site: &Site) -> Result<Self> {
        if site.classes < 2 || site.input.is_empty() || site.input.len() > 3 || site.input.contains(&0) {
            let found = format!("{:?} and {} classes", site.input, site.classes);
            return Err(refused(name, "samples [C, H, W], [C, T] or [F] and at least 2 classes", found));
        }
        let mut graph = Graph::new(name);
        let dims = std::iter::once(Dim::Batch).chain(site.input.iter().map(|&n| Dim::Known(n)));
        let id = graph.add_input("x", ElementType::F32, Shape(dims.collect()));
        Ok(Self { graph, tail: Tail { id, shape: site.input.clone() }, parameters: 0 })
    }

    /// A net that goes on behind a value of a graph.
    pub fn resume(graph: Graph, tail: Tail) -> Self {
        Self { graph, tail, parameters: 0 }
    }

    /// The graph as it stands, its outputs as they were, and what the net ends in.
    pub fn into_parts(self) -> (Graph, Tail) {
        (self.graph, self.tail)
    }

    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.graph.find(name)
    }

    /// The finished graph; the tail is its output.
    pub fn finish(mut self) -> Result<Graph> {
        self.graph.outputs = vec![self.tail.id];
        self.graph.validate()?;
        Ok(self.graph)
    }

    /// An initializer of zeros (or of `fill`).
    pub fn parameter(&mut self, name: &str, shape: &[usize], fill: f32) -> Result<ValueId> {
        self.parameter_of(name, shape, |len| vec![fill; len])
    }

    /// An initializer of the values that `make` gives, so many, once it is known that there is room for them.
    pub fn parameter_of(
        &mut self,
        name: &str,
        shape: &[usize],
        make: impl FnOnce(usize) -> Vec<f32>,
    ) -> Result<ValueId> {
        let len = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MOST_PARAMETERS);
        let total = len.and_then(|n| n.checked_add(self.parameters)).filter(|&n| n <= MOST_PARAMETERS);
        let (Some(len), Some(total)) = (len, total) else {
            let found = format!("more, at `{name}` {shape:?}");
            return Err(refused(&self.graph.name, format!("at most {MOST_PARAMETERS} parameters"), found));
        };
        check_room(&self.graph.name, total)?;
        self.parameters = total;
        Ok(self.graph.add_initializer(name, Tensor::from_vec(shape, make(len))))
    }

    /// A constant.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.graph.add_initializer(name, tensor)
    }

    /// An operator, whose output of this shape becomes the tail.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId], name: &str, shape: Vec<usize>) {
        let id = self.graph.apply(op, inputs, name);
        self.tail = Tail { id, shape };
    }

    /// A convolution with "same" pads: the output is the input divided by the stride, rounded up. Even kernels have the
    /// larger pad at the end, as TensorFlow and ONNX's SAME_UPPER.
    pub fn conv(&mut self, name: &str, conv: &Conv) -> Result<()> {
        let shape = self.tail.shape.clone();
        let axes = shape.len() - 1;
        if !(1..=2).contains(&axes) {
            let found = format!("{shape:?}");
            return Err(refused(&self.graph.name, "images [C, H, W] or series [C, T]", found));
        }
        let groups = if conv.groups == usize::MAX { shape[0] } else { conv.groups };
        if !shape[0].is_multiple_of(groups) || !conv.channels.is_multiple_of(groups) {
            let expected = format!("channels that {groups} groups divide");
            let found = format!("{} to {} at `{name}`", shape[0], conv.channels);
            return Err(refused(&self.graph.name, expected, found));
        }
        let (kernel, stride) = (&conv.kernel[2 - axes..], &conv.stride[2 - axes..]);
        let (mut begins, mut ends, mut out) = (Vec::new(), Vec::new(), vec![conv.channels]);
        for ((&size, &k), &s) in shape[1..].iter().zip(kernel).zip(stride) {
            let reach = (k - 1) * conv.dilation + 1;
            let count = size.div_ceil(s);
            let pad = ((count - 1) * s + reach).saturating_sub(size);
            // Symmetric where the reach is odd, as PyTorch: same sizes, and the pad that a stride leaves unused is at
            // the end.
            let begin = if reach % 2 == 1 { (reach - 1) / 2 } else { pad / 2 };
            begins.push(begin);
            ends.push(if reach % 2 == 1 { (reach - 1) / 2 } else { pad - pad / 2 });
            out.push((size + begins[begins.len() - 1] + ends[ends.len() - 1] - reach) / s + 1);
        }
        let weights: Vec<usize> =
            [conv.channels, shape[0] / groups].into_iter().chain(kernel.iter().copied()).collect();
        let mut inputs = vec![self.tail.id, self.parameter(&format!("{name}.weight"), &weights, 0.0)?];
        if conv.bias {
            inputs.push(self.parameter(&format!("{name}.bias"), &[conv.channels], 0.0)?);
        }
        begins.extend(ends);
        let dilations = if conv.dilation == 1 { Vec::new() } else { vec![conv.dilation; axes] };
        let window = Window { strides: stride.to_vec(), pads: begins, dilations, ..Window::default() };
        self.apply(ops::conv::Conv { window, group: groups }, &inputs, name, out);
        Ok(())
    }

    /// A batch norm with scale 1 and bias 0.
    pub fn norm(&mut self, name: &str) -> Result<()> {
        let channels = [self.tail.shape[0]];
        let mut inputs = vec![self.tail.id];
        for (part, fill) in [("scale", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)] {
            inputs.push(self.parameter(&format!("{name}.{part}"), &channels, fill)?);
        }
        let op = ops::batch_norm::BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
        let shape = self.tail.shape.clone();
        self.apply(op, &inputs, name, shape);
        Ok(())
    }

    /// A ReLU.
    pub fn relu(&mut self, name: &str) {
        let (id, shape) = (self.tail.id, self.tail.shape.clone());
        self.apply(ops::relu::Relu, &[id], name, shape);
    }

    /// `min(max(x, 0), 6)`.
    pub fn relu6(&mut self, name: &str) {
        let bounds = [("low", 0.0_f32), ("high", 6.0)]
            .map(|(part, bound)| self.graph.add_initializer(&format!("{name}.{part}"), Tensor::scalar(bound)));
        let (id, shape) = (self.tail.id, self.tail.shape.clone());
        self.apply(ops::relu::Clip, &[id, bounds[0], bounds[1]], name, shape);
    }

    /// A convolution and its batch norm, named NAME.
    pub fn conv_norm(&mut self, name: &str, conv: &Conv) -> Result<()> {
        self.conv(&format!("{name}.conv"), conv)?;
        self.norm(name)
    }

    /// A convolution, its batch norm (named `NAME.pre`, before the activation) and a ReLU (named NAME).
    pub fn conv_norm_relu(&mut self, name: &str, conv: &Conv) -> Result<()> {
        self.conv(&format!("{name}.conv"), conv)?;
        self.norm(&format!("{name}.pre"))?;
        self.relu(name);
        Ok(())
    }

    /// A depthwise 3x3 convolution (NAME.depthwise) and a pointwise one (NAME), each with batch norm and ReLU.
    pub fn separable(&mut self, name: &str, channels: usize, stride: usize, bias: bool) -> Result<()> {
        let depthwise = Conv { groups: usize::MAX, bias, ..Conv::square(self.tail.shape[0], 3, stride) };
        self.conv_norm_relu(&format!("{name}.depthwise"), &depthwise)?;
        self.conv_norm_relu(name, &Conv { bias, ..Conv::pointwise(channels) })
    }

    /// The sum with another value of the same shape.
    pub fn add(&mut self, name: &str, other: &Tail) {
        let (id, shape) = (self.tail.id, self.tail.shape.clone());
        self.apply(ops::arith::Add, &[id, other.id], name, shape);
    }

    /// The same value under another name.
    pub fn same(&mut self, name: &str) {
        let (id, shape) = (self.tail.id, self.tail.shape.clone());
        self.apply(ops::dropout::Identity, &[id], name, shape);
    }

    /// The channels of several values of one size, one behind the other.
    pub fn concat(&mut self, name: &str, parts: &[Tail]) {
        let ids: Vec<ValueId> = parts.iter().map(|part| part.id).collect();
        let mut shape = self.tail.shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        self.apply(ops::concat::Concat { axis: 1 }, &ids, name, shape);
    }

    /// Channels `from` to `to`.
    pub fn channels(&mut self, name: &str, from: usize, to: usize) {
        let id = self.tail.id;
        let [starts, ends, axes] = [("starts", from), ("ends", to), ("axes", 1)].map(|(part, n)| {
            self.graph.add_initializer(&format!("{name}.{part}"), Tensor::from_vec(&[1], vec![n as i64]))
        });
        let mut shape = self.tail.shape.clone();
        shape[0] = to - from;
        self.apply(ops::slice::Slice, &[id, starts, ends, axes], name, shape);
    }

    /// Channel `i` of group `g` becomes channel `i · groups + g` (Zhang et al. 2018, arXiv 1707.01083, §3.1). The groups
    /// must divide the channels, as those of the convolution before do.
    pub fn shuffle(&mut self, name: &str, groups: usize) {
        let shape = self.tail.shape.clone();
        let split = [&[groups, shape[0] / groups], &shape[1..]].concat();
        let order = [&[0, 2, 1][..], &(3..split.len() + 1).collect::<Vec<_>>()].concat();
        self.reshape(&format!("{name}.split"), split);
        let id = self.tail.id;
        self.apply(ops::transpose::Transpose { perm: order }, &[id], &format!("{name}.moved"), Vec::new());
        self.reshape(name, shape);
    }

    /// The same elements of each sample in another shape.
    pub fn reshape(&mut self, name: &str, shape: Vec<usize>) {
        // A 0 copies the size of the batch.
        let sizes: Vec<i64> = std::iter::once(0).chain(shape.iter().map(|&n| n as i64)).collect();
        let sizes = self.constant(&format!("{name}.shape"), Tensor::from_vec(&[sizes.len()], sizes));
        let id = self.tail.id;
        self.apply(ops::reshape::Reshape { allowzero: false }, &[id, sizes], name, shape);
    }

    /// Channels and time of a series, or time and channels, the other way around.
    pub fn swap(&mut self, name: &str) {
        let (id, shape) = (self.tail.id, self.tail.shape.iter().rev().copied().collect());
        self.apply(ops::transpose::Transpose { perm: vec![0, 2, 1] }, &[id], name, shape);
    }

    /// The mean of windows, whose pads (the same at both ends) count as zeros.
    pub fn average_pool(&mut self, name: &str, kernel: &[usize], stride: &[usize], pad: usize) {
        let mut shape = self.tail.shape.clone();
        for (size, (k, s)) in shape[1..].iter_mut().zip(kernel.iter().zip(stride)) {
            *size = (*size + 2 * pad - k) / s + 1;
        }
        let pads = vec![pad; 2 * kernel.len()];
        let window = Window { kernel: kernel.to_vec(), strides: stride.to_vec(), pads, ..Window::default() };
        let id = self.tail.id;
        self.apply(ops::pool::AveragePool { window, count_include_pad: true }, &[id], name, shape);
    }

    /// The largest of 3 neighbors along each axis; sizes stay.
    pub fn max_pool_same(&mut self, name: &str) {
        let (id, shape) = (self.tail.id, self.tail.shape.clone());
        let axes = shape.len() - 1;
        let (kernel, strides, pads) = (vec![3; axes], vec![1; axes], vec![1; 2 * axes]);
        let window = Window { kernel, strides, pads, ..Window::default() };
        self.apply(ops::pool::MaxPool { window, storage_order: 0 }, &[id], name, shape);
    }

    /// Max pooling of 2 along each axis; axes of 1 stay.
    pub fn max_pool(&mut self, name: &str) {
        let mut shape = self.tail.shape.clone();
        let kernel: Vec<usize> = shape[1..].iter().map(|&size| size.min(2)).collect();
        shape[1..].iter_mut().for_each(|size| *size = (*size / 2).max(1));
        let window = Window { kernel: kernel.clone(), strides: kernel, ..Window::default() };
        let id = self.tail.id;
        self.apply(ops::pool::MaxPool { window, storage_order: 0 }, &[id], name, shape);
    }

    /// The mean over all spatial axes, as a vector named NAME.
    pub fn global_average(&mut self, name: &str) {
        let (id, channels) = (self.tail.id, self.tail.shape[0]);
        let spatial = vec![1; self.tail.shape.len() - 1];
        self.apply(ops::pool::GlobalAveragePool, &[id], &format!("{name}.pool"), [vec![channels], spatial].concat());
        self.flatten(name);
    }

    /// Everything as a vector.
    pub fn flatten(&mut self, name: &str) {
        let (id, elements) = (self.tail.id, self.tail.shape.iter().product());
        self.apply(ops::reshape::Flatten { axis: 1 }, &[id], name, vec![elements]);
    }

    /// Dropout; none for a ratio of 0.
    pub fn dropout(&mut self, name: &str, ratio: f64) {
        if ratio > 0.0 {
            let (id, shape) = (self.tail.id, self.tail.shape.clone());
            let ratio = self.graph.add_initializer(&format!("{name}.ratio"), Tensor::scalar(ratio as f32));
            self.apply(ops::dropout::Dropout { seed: None }, &[id, ratio], name, shape);
        }
    }

    /// A linear layer with bias.
    pub fn linear(&mut self, name: &str, outputs: usize) -> Result<()> {
        let weight = self.parameter(&format!("{name}.weight"), &[outputs, self.tail.shape[0]], 0.0)?;
        let bias = self.parameter(&format!("{name}.bias"), &[outputs], 0.0)?;
        let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        let id = self.tail.id;
        self.apply(gemm, &[id, weight, bias], name, vec![outputs]);
        Ok(())
    }
}

/// The option `width` of architectures that multiply their channels by it: refused where no machine has so many.
pub fn width(arch: &str, options: &Options) -> Result<f64> {
    match options.number("width") {
        width if width <= MOST_WIDTH => Ok(width),
        width => Err(refused(arch, format!("a width of at most {MOST_WIDTH}"), width)),
    }
}

/// Refuses samples that are no images.
pub fn images(arch: &str, site: &Site) -> Result<()> {
    match site.input.len() {
        3 => Ok(()),
        _ => Err(refused(arch, "images [C, H, W]", format!("{:?}", site.input))),
    }
}

/// Refuses samples that are no series.
pub fn series(arch: &str, site: &Site) -> Result<()> {
    match site.input.len() {
        2 => Ok(()),
        _ => Err(refused(arch, "series [C, T]", format!("{:?}", site.input))),
    }
}

/// Refuses weights for whose training this machine lacks the memory, before they are there.
fn check_room(arch: &str, parameters: usize) -> Result<()> {
    if parameters <= FEW_PARAMETERS {
        return Ok(());
    }
    let needed = parameters.saturating_mul(BYTES_PER_PARAMETER);
    match available_bytes() {
        Some(available) if needed > available => {
            let expected =
                format!("parameters that fit the {} MiB that are free while they are trained", available >> 20);
            let found = format!("{parameters} or more, of {} MiB", needed >> 20);
            Err(refused(arch, expected, found).with_exit(Exit::Lacking))
        }
        _ => Ok(()),
    }
}

/// An architecture that cannot take a site or its options.
pub fn refused(arch: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Refusal {
    Refusal::new(format!("architecture `{arch}`"), expected, found, "choose other options or another architecture")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_no_machine_can_train_are_refused_before_they_are_there() {
        assert!(check_room("mlp", 1000).is_ok());
        let refusal = check_room("mlp", usize::MAX / 100).err().unwrap();
        assert_eq!(refusal.exit, Exit::Lacking);
        assert!(refusal.to_string().contains("parameters that fit the "), "{refusal}");
    }
}
