//! What an operator computes on: its inputs and outputs, wherever they lie (tensors, or the engine's arena).

use core::marker::PhantomData;
use core::ptr::NonNull;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::OpError;
use crate::graph::{ElementType, Slice, SliceMut, Tensor, TensorView, TensorViewMut};

/// One input or output: type, shape and where its elements lie.
#[derive(Clone, Debug)]
pub struct Binding {
    element: ElementType,
    shape: Box<[usize]>,
    len: usize,
    data: NonNull<u8>,
}

impl Binding {
    /// Binds `shape` elements at `data`.
    ///
    /// # Safety
    /// `data` is aligned for `element` and, whenever a [`Frame`] over this binding is used, points to as many
    /// initialised elements as the shape's product (booleans of an input 0 or 1).
    pub unsafe fn new(element: ElementType, shape: &[usize], data: NonNull<u8>) -> Self {
        Self { element, shape: shape.into(), len: shape.iter().product(), data }
    }

    /// The element type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// An operator's inputs and outputs for one evaluation.
pub struct Frame<'a> {
    inputs: &'a [Option<Binding>],
    outputs: &'a [Binding],
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Frame<'a> {
    /// A frame over bindings.
    ///
    /// # Safety
    /// For `'a` every binding's contract holds, no output overlaps another output or any input, and nothing else
    /// writes the inputs or touches the outputs.
    pub unsafe fn new(inputs: &'a [Option<Binding>], outputs: &'a [Binding]) -> Self {
        Self { inputs, outputs, memory: PhantomData }
    }

    /// Number of inputs, left-out ones included.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Input `i`, if it is there.
    pub fn optional(&self, i: usize) -> Option<TensorView<'a>> {
        let binding = self.inputs.get(i)?.as_ref()?;
        let (n, p) = (binding.len, binding.data.as_ptr());
        // SAFETY: `Frame::new`'s contract: n initialised, aligned elements that nobody writes during 'a.
        let data = unsafe {
            match binding.element {
                ElementType::F32 => Slice::F32(core::slice::from_raw_parts(p.cast(), n)),
                ElementType::U8 => Slice::U8(core::slice::from_raw_parts(p.cast(), n)),
                ElementType::I8 => Slice::I8(core::slice::from_raw_parts(p.cast(), n)),
                ElementType::I32 => Slice::I32(core::slice::from_raw_parts(p.cast(), n)),
                ElementType::I64 => Slice::I64(core::slice::from_raw_parts(p.cast(), n)),
                ElementType::Bool => Slice::Bool(core::slice::from_raw_parts(p.cast(), n)),
            }
        };
        Some(TensorView { shape: &binding.shape, data })
    }

    /// Input `i`; panics if it is left out (the shape rule has checked that it is there).
    #[track_caller]
    pub fn input(&self, i: usize) -> TensorView<'a> {
        self.optional(i).unwrap_or_else(|| panic!("input {i} is left out"))
    }

    /// The first output, for as long as the frame's memory is borrowed.
    pub fn into_output(self) -> TensorViewMut<'a> {
        self.view_mut(0)
    }

    /// Output `i`.
    pub fn output(&mut self, i: usize) -> TensorViewMut<'_> {
        self.view_mut(i)
    }

    /// Outputs `i` and `j` at once; panics if they are one.
    pub fn output_pair(&mut self, i: usize, j: usize) -> (TensorViewMut<'_>, TensorViewMut<'_>) {
        assert_ne!(i, j, "two views of one output");
        (self.view_mut(i), self.view_mut(j))
    }

    /// The caller sees to it that no other view of this output is alive.
    fn view_mut(&self, i: usize) -> TensorViewMut<'a> {
        let binding = &self.outputs[i];
        let (n, p) = (binding.len, binding.data.as_ptr());
        // SAFETY: `Frame::new`'s contract: n initialised, aligned elements that overlap nothing; the callers'
        // `&mut self` or `self` keeps a second view of an output from existing at the same time.
        let data = unsafe {
            match binding.element {
                ElementType::F32 => SliceMut::F32(core::slice::from_raw_parts_mut(p.cast(), n)),
                ElementType::U8 => SliceMut::U8(core::slice::from_raw_parts_mut(p.cast(), n)),
                ElementType::I8 => SliceMut::I8(core::slice::from_raw_parts_mut(p.cast(), n)),
                ElementType::I32 => SliceMut::I32(core::slice::from_raw_parts_mut(p.cast(), n)),
                ElementType::I64 => SliceMut::I64(core::slice::from_raw_parts_mut(p.cast(), n)),
                ElementType::Bool => {
                    // The bytes may have held another value of the arena: a reference to booleans needs 0 or 1.
                    core::slice::from_raw_parts_mut(p, n).iter_mut().for_each(|byte| *byte &= 1);
                    SliceMut::Bool(core::slice::from_raw_parts_mut(p.cast(), n))
                }
            }
        };
        TensorViewMut { shape: &binding.shape, data }
    }
}

/// Runs `f` on a frame over tensors.
pub fn with_tensors(
    inputs: &[Option<&Tensor>],
    outputs: &mut [Tensor],
    f: impl FnOnce(&mut Frame<'_>) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let bind = |element, shape: &[usize], data: NonNull<u8>| {
        // SAFETY: the pointer comes from a live slice of as many elements of this type.
        unsafe { Binding::new(element, shape, data) }
    };
    let inputs: Vec<Option<Binding>> =
        (inputs.iter()).map(|input| input.map(|t| bind(t.element(), t.shape(), start(t.data().view())))).collect();
    let outputs: Vec<Binding> = (outputs.iter_mut())
        .map(|t| {
            let (element, shape) = (t.element(), t.shape().to_vec());
            bind(element, &shape, start_mut(t.data_mut().view_mut()))
        })
        .collect();
    // SAFETY: inputs are borrowed shared and outputs exclusively for the whole call, so they cannot overlap.
    let mut frame = unsafe { Frame::new(&inputs, &outputs) };
    f(&mut frame)
}

/// Where a slice's elements begin.
pub fn start(slice: Slice<'_>) -> NonNull<u8> {
    match slice {
        Slice::F32(v) => NonNull::from(v).cast(),
        Slice::U8(v) => NonNull::from(v).cast(),
        Slice::I8(v) => NonNull::from(v).cast(),
        Slice::I32(v) => NonNull::from(v).cast(),
        Slice::I64(v) => NonNull::from(v).cast(),
        Slice::Bool(v) => NonNull::from(v).cast(),
    }
}

fn start_mut(slice: SliceMut<'_>) -> NonNull<u8> {
    match slice {
        SliceMut::F32(v) => NonNull::from(v).cast(),
        SliceMut::U8(v) => NonNull::from(v).cast(),
        SliceMut::I8(v) => NonNull::from(v).cast(),
        SliceMut::I32(v) => NonNull::from(v).cast(),
        SliceMut::I64(v) => NonNull::from(v).cast(),
        SliceMut::Bool(v) => NonNull::from(v).cast(),
    }
}
