//! Element types, owned tensors and borrowed views; row-major, dense.

use alloc::vec::Vec;
use core::fmt;

/// What one element of a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// IEEE single precision.
    F32,
    /// Unsigned byte: quantized activations, raw images.
    U8,
    /// Signed byte: quantized weights and activations.
    I8,
    /// Quantized bias, integer accumulators.
    I32,
    /// Shapes and indices.
    I64,
    /// Conditions and masks.
    Bool,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        })
    }
}

/// A Rust type that is an element type.
pub trait Element: Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Its name among the element types.
    const TYPE: ElementType;
    /// The slice, if it holds this type.
    fn slice<'a>(slice: Slice<'a>) -> Option<&'a [Self]>;
    /// The slice, if it holds this type.
    fn slice_mut<'a>(slice: SliceMut<'a>) -> Option<&'a mut [Self]>;
    /// Wraps a vector.
    fn data(values: Vec<Self>) -> Data;
}

macro_rules! elements {
    ($($variant:ident $type:ty),+) => {
        /// The elements of an owned tensor.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Data { $($variant(Vec<$type>)),+ }

        /// The elements of a borrowed tensor.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Slice<'a> { $($variant(&'a [$type])),+ }

        /// The elements of a tensor borrowed for writing.
        #[derive(Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum SliceMut<'a> { $($variant(&'a mut [$type])),+ }

        impl Data {
            /// `count` zeros (`false`).
            pub fn zeros(element: ElementType, count: usize) -> Self {
                match element { $(ElementType::$variant => Self::$variant(alloc::vec![<$type>::default(); count])),+ }
            }
            /// The element type.
            pub fn element(&self) -> ElementType { match self { $(Self::$variant(_) => ElementType::$variant),+ } }
            /// Number of elements.
            pub fn len(&self) -> usize { match self { $(Self::$variant(v) => v.len()),+ } }
            /// Whether there is no element.
            pub fn is_empty(&self) -> bool { self.len() == 0 }
            /// Borrows the elements.
            pub fn view(&self) -> Slice<'_> { match self { $(Self::$variant(v) => Slice::$variant(v)),+ } }
            /// Borrows the elements for writing.
            pub fn view_mut(&mut self) -> SliceMut<'_> { match self { $(Self::$variant(v) => SliceMut::$variant(v)),+ } }
        }

        impl Slice<'_> {
            /// The element type.
            pub fn element(&self) -> ElementType { match self { $(Self::$variant(_) => ElementType::$variant),+ } }
            /// Number of elements.
            pub fn len(&self) -> usize { match self { $(Self::$variant(v) => v.len()),+ } }
            /// Whether there is no element.
            pub fn is_empty(&self) -> bool { self.len() == 0 }
            /// Copies the elements.
            pub fn to_data(&self) -> Data { match self { $(Self::$variant(v) => Data::$variant(v.to_vec())),+ } }
        }

        impl SliceMut<'_> {
            /// The element type.
            pub fn element(&self) -> ElementType { match self { $(Self::$variant(_) => ElementType::$variant),+ } }
            /// Number of elements.
            pub fn len(&self) -> usize { match self { $(Self::$variant(v) => v.len()),+ } }
            /// Whether there is no element.
            pub fn is_empty(&self) -> bool { self.len() == 0 }
            /// Copies `source` over the elements. Both have the same element type and length (checked: panics otherwise).
            pub fn copy_from(&mut self, source: Slice<'_>) {
                match (self, source) {
                    $((SliceMut::$variant(to), Slice::$variant(from)) => to.copy_from_slice(from),)+
                    (to, from) => panic!("copy of {} elements onto {}", from.element(), to.element()),
                }
            }
        }

        $(impl Element for $type {
            const TYPE: ElementType = ElementType::$variant;
            fn slice<'a>(slice: Slice<'a>) -> Option<&'a [Self]> {
                match slice { Slice::$variant(v) => Some(v), _ => None }
            }
            fn slice_mut<'a>(slice: SliceMut<'a>) -> Option<&'a mut [Self]> {
                match slice { SliceMut::$variant(v) => Some(v), _ => None }
            }
            fn data(values: Vec<Self>) -> Data { Data::$variant(values) }
        })+
    };
}
elements!(F32 f32, U8 u8, I8 i8, I32 i32, I64 i64, Bool bool);

/// An owned tensor: initializers, constants, results.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape` with these elements. `None` if their number is not the product of the shape.
    pub fn new(shape: Vec<usize>, data: Data) -> Option<Self> {
        (count(&shape)? == data.len()).then_some(Self { shape, data })
    }

    /// A tensor of `shape` from a vector; panics if the lengths differ (for values that the program made itself).
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        let found = values.len();
        Self::new(shape.to_vec(), T::data(values)).unwrap_or_else(|| panic!("{found} elements for shape {shape:?}"))
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Vec::new(), data: T::data(alloc::vec![value]) }
    }

    /// Zeros.
    pub fn zeros(element: ElementType, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: Data::zeros(element, shape.iter().product()) }
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, for writing.
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// The element type.
    pub fn element(&self) -> ElementType {
        self.data.element()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.element().bytes()
    }

    /// The elements as `T`, if that is their type.
    pub fn get<T: Element>(&self) -> Option<&[T]> {
        T::slice(self.data.view())
    }

    /// The elements as `T` for writing, if that is their type.
    pub fn get_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(self.data.view_mut())
    }

    /// Borrows the tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { shape: &self.shape, data: self.data.view() }
    }

    /// The same elements under another shape of the same size; `None` if the sizes differ.
    pub fn reshaped(self, shape: &[usize]) -> Option<Self> {
        Self::new(shape.to_vec(), self.data)
    }
}

/// A borrowed tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// The sizes, outermost first.
    pub shape: &'a [usize],
    /// The elements.
    pub data: Slice<'a>,
}

impl<'a> TensorView<'a> {
    /// The elements as `T`; panics on another type (types were checked when the graph was).
    #[track_caller]
    pub fn get<T: Element>(&self) -> &'a [T] {
        T::slice(self.data).unwrap_or_else(|| panic!("expected {} elements, found {}", T::TYPE, self.data.element()))
    }

    /// The element type.
    pub fn element(&self) -> ElementType {
        self.data.element()
    }

    /// A copy that owns its elements.
    pub fn to_tensor(&self) -> Tensor {
        Tensor { shape: self.shape.to_vec(), data: self.data.to_data() }
    }
}

/// A tensor borrowed for writing.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    /// The sizes, outermost first.
    pub shape: &'a [usize],
    /// The elements.
    pub data: SliceMut<'a>,
}

impl<'a> TensorViewMut<'a> {
    /// The elements as `T`; panics on another type (types were checked when the graph was).
    #[track_caller]
    pub fn get<T: Element>(self) -> &'a mut [T] {
        let found = self.data.element();
        T::slice_mut(self.data).unwrap_or_else(|| panic!("expected {} elements, found {found}", T::TYPE))
    }
}

/// The product of a shape; `None` if it overflows.
pub fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))
}
