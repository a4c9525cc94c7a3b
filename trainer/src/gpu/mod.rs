//! A GPU: memory with a mirror of the host, and kernels that run one after another while the program goes on.
//!
//! [`Gpu`] is a handle; behind it is an [`Engine`], which CUDA is (`cuda`, with the feature of that name) and, in tests, the
//! same kernels compiled for the host (`emulated`). Whatever has no kernel in [`table`] is computed by the host, in the mirrors
//! of the same arrays ([`memory`]).
//!
//! Kernels are text (`*.cu`, the part of C that CUDA has too), compiled for the device when they are first wanted: a program
//! built anywhere runs on whatever GPU, driver and libraries it finds.

pub mod args;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(test)]
mod emulated;
pub mod losses;
pub mod memory;
pub mod ops;
pub mod optim;
pub mod source;
#[cfg(feature = "cuda")]
mod staging;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kd_runtime::{Exit, Refusal, Result};
use serde::Serialize;

use memory::Allocation;

pub use args::Args;
#[cfg(feature = "cuda")]
pub use cuda::compile;

/// What runs kernels, in the order in which they were launched.
pub trait Engine: Send + Sync {
    /// What it is, for reports.
    fn name(&self) -> String;

    /// Threads of a group.
    fn threads(&self) -> usize {
        GROUP
    }

    /// Of products.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// Libraries that are not there, or do not work, each with the reason: without them it is slow.
    fn lacks(&self) -> &[String] {
        &[]
    }

    /// Bytes that can be had; `None` where it is not known.
    fn free_bytes(&self) -> Option<usize>;

    /// Address of zeros; refused (with exit 3) where there is not enough memory.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back, once no kernel works on it.
    ///
    /// # Safety
    ///
    /// The address was allocated here, of so many bytes, and is not used any more.
    unsafe fn free(&self, address: u64, bytes: usize);

    /// Queues a copy of the host's bytes, which may change when this returns.
    ///
    /// # Safety
    ///
    /// Both are of so many bytes.
    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize);

    /// Copies bytes to the host when all that was queued is done. Copies anything if that has failed.
    ///
    /// # Safety
    ///
    /// Both are of so many bytes.
    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize);

    /// Queues a kernel for so many groups of threads.
    ///
    /// # Safety
    ///
    /// The arguments are those that the kernel reads, and their memory was allocated here, is as long as the kernel takes
    /// it to be and stays until [`Engine::wait`] has returned.
    unsafe fn launch(&self, kernel: &'static str, groups: usize, args: &Args);

    /// Queues a matrix product, if it has something better than the kernel `product`; says whether.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    unsafe fn matmul(&self, _product: &Matmul) -> bool {
        false
    }

    /// Queues a convolution, if it has something better than the kernels `conv_…`; else says why not.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    unsafe fn convolve(&self, _convolution: &Convolution) -> std::result::Result<(), String> {
        Err("no library".into())
    }

    /// Waits until all that was queued is done. Refuses (with exit 3) if any of it failed.
    fn wait(&self) -> Result<()>;
}

/// Matrix products `y (+)= alpha A B`, one after another: `[m, k]` by `[k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    /// A and B.
    pub inputs: [*const c_void; 2],
    /// y, row after row.
    pub output: *mut c_void,
    /// m, n, k.
    pub sizes: [usize; 3],
    /// Of A and of B: from row to row, and from column to column.
    pub strides: [[usize; 2]; 2],
    /// Products.
    pub batch: usize,
    /// From matrix to matrix of A and of B.
    pub steps: [usize; 2],
    /// Factor of the products.
    pub alpha: f32,
    /// Whether they are added to y.
    pub add: bool,
}

impl Matmul {
    /// A and B as libraries take them: whether the memory holds the transposed matrix, and elements from one of its rows to
    /// the next, at least as many as a row has. `None` where the elements of neither rows nor columns lie side by side.
    pub fn leads(&self) -> Option<[(bool, usize); 2]> {
        let [m, n, k] = self.sizes;
        let lead = |[along_rows, along_columns]: [usize; 2], rows: usize, columns: usize| {
            if (along_columns == 1 || columns == 1) && (along_rows >= columns || rows == 1) {
                Some((false, along_rows.max(columns)))
            } else if (along_rows == 1 || rows == 1) && (along_columns >= rows || columns == 1) {
                Some((true, along_columns.max(rows)))
            } else {
                None
            }
        };
        Some([lead(self.strides[0], m, k)?, lead(self.strides[1], k, n)?])
    }
}

/// What of a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// y, of x and the weights.
    Forward,
    /// The gradient of x, of that of y and the weights.
    Input,
    /// The gradient of the weights, of that of y and x.
    Weights,
}

/// A convolution of images with their channels last; weights are `[M, kernel, C / groups]`.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// What is computed.
    pub direction: Direction,
    /// Images, input h, w, c, output h, w, c, channels of a group in and out, kernel, strides, dilations, pads.
    pub sizes: [usize; 17],
    /// What it is computed of, in the direction's order.
    pub inputs: [*const c_void; 2],
    /// What is computed.
    pub output: *mut c_void,
    /// Whether it is added to what is there.
    pub add: bool,
}

impl Convolution {
    /// Whether libraries can be told of it: their pads are the same on both sides.
    pub fn is_even(&self) -> bool {
        let [_, h, w, _, oh, ow, _, _, _, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x] =
            self.sizes;
        even_output(h, kh, stride_y, dilation_y, pad_y) == Some(oh)
            && even_output(w, kw, stride_x, dilation_x, pad_x) == Some(ow)
    }
}

/// Size of a convolution's output along an axis with as many zeros before as behind; `None` where no window fits.
pub fn even_output(input: usize, kernel: usize, stride: usize, dilation: usize, pad: usize) -> Option<usize> {
    (input + 2 * pad).checked_sub(dilation * (kernel - 1) + 1).map(|rest| rest / stride + 1)
}

/// Who has done the convolutions that were asked for, but those that are matrix products.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Convolutions {
    /// How many the vendor's library has done.
    pub library: usize,
    /// How many our own kernels have.
    pub own: usize,
    /// The first of those, and why.
    pub reason: Option<String>,
}

/// How exactly products of floats are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// All 24 bits of each factor.
    #[default]
    F32,
    /// 11 bits of each factor, in the units that multiply matrices; sums in f32. Arrays stay f32.
    Tf32,
}

impl Precision {
    /// The precision of a word of [`PRECISIONS`](crate::recipe::keys::PRECISIONS); the first for any other.
    pub fn of(word: &str) -> Self {
        if word == "tf32" { Self::Tf32 } else { Self::F32 }
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
        }
    }
}

/// A GPU that work is queued on. Copies are the same one.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    engine: Box<dyn Engine>,
    /// By the addresses of their mirrors.
    arrays: Mutex<BTreeMap<usize, Weak<Allocation>>>,
    convolutions: Mutex<Convolutions>,
}

/// Threads of a group, in every kernel: what the sources call the most they are written for.
pub const GROUP: usize = 256;

/// Groups of an element-wise kernel at most; each thread then takes several elements.
const MOST_GROUPS: usize = 1 << 16;

impl Gpu {
    /// The GPU of this number. Refused, with exit 3, where this build, this machine or its libraries have none.
    #[cfg(feature = "cuda")]
    pub fn open(number: usize, precision: Precision) -> Result<Self> {
        cuda::Cuda::open(number, precision).map(Self::new)
    }

    /// This build has none: refused, with exit 3.
    #[cfg(not(feature = "cuda"))]
    pub fn open(number: usize, _: Precision) -> Result<Self> {
        Err(lacking(
            "a device of this build: cpu",
            format!("cuda:{number}"),
            "use --device cpu, or build with the feature `cuda`",
        ))
    }

    fn new(engine: impl Engine + 'static) -> Self {
        let (arrays, convolutions) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { engine: Box::new(engine), arrays, convolutions }))
    }

    fn engine(&self) -> &dyn Engine {
        &*self.0.engine
    }

    fn arrays(&self) -> MutexGuard<'_, BTreeMap<usize, Weak<Allocation>>> {
        self.0.arrays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The array that an address of a mirror lies in.
    fn find(&self, place: *const c_void) -> Option<Arc<Allocation>> {
        let before = self.arrays().range(..=place as usize).next_back().and_then(|(_, array)| array.upgrade());
        before.filter(|array| array.has(place as usize))
    }

    /// The same.
    ///
    /// # Panics
    ///
    /// If it is another address: what was to be told to a kernel is not on this GPU.
    fn array(&self, place: *const c_void) -> Arc<Allocation> {
        self.find(place).expect("what a kernel is told lies on its GPU")
    }

    /// Whether elements, one at least, lie in an array of this GPU (their mirrors do).
    pub fn holds<T>(&self, elements: &[T]) -> bool {
        !elements.is_empty() && self.find(elements.as_ptr().cast()).is_some()
    }

    /// A number of what is in the array that elements lie in, another one once somebody writes it; 0 of no elements.
    pub fn version<T>(&self, elements: &[T]) -> usize {
        if elements.is_empty() { 0 } else { self.array(elements.as_ptr().cast()).version() }
    }

    /// What a kernel is told for an address of a mirror, when what the host has written is sent.
    fn sent(&self, place: *const c_void) -> *const c_void {
        if place.is_null() { place } else { self.array(place).sent(place as usize) }
    }

    /// Says that the array of an address is written.
    fn written(&self, place: *const c_void) {
        if !place.is_null() {
            self.array(place).written();
        }
    }

    /// What it is, for reports.
    pub fn name(&self) -> String {
        self.engine().name()
    }

    /// Of products.
    pub fn precision(&self) -> Precision {
        self.engine().precision()
    }

    /// Libraries that are not there, or do not work; see [`Engine::lacks`].
    pub fn lacks(&self) -> &[String] {
        self.engine().lacks()
    }

    /// Who has done the convolutions until now.
    pub fn convolutions(&self) -> Convolutions {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Convolutions> {
        self.0.convolutions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that can be had; `None` where it is not known.
    pub fn free_bytes(&self) -> Option<usize> {
        self.engine().free_bytes()
    }

    /// Threads of a group.
    pub fn threads(&self) -> usize {
        self.engine().threads()
    }

    /// # Safety
    ///
    /// As [`Engine::launch`], but for the addresses, which are those of mirrors.
    unsafe fn launch(&self, kernel: &'static str, groups: usize, args: &Args) {
        let told = args.map(|place| self.sent(place));
        // SAFETY: as the caller says.
        unsafe { self.engine().launch(kernel, groups, &told) };
        args.written().for_each(|place| self.written(place));
    }

    /// Queues a kernel that does `n` elements, one after another or at once.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    pub unsafe fn each(&self, kernel: &'static str, n: usize, args: &Args) {
        if n > 0 {
            // SAFETY: as the caller says.
            unsafe { self.launch(kernel, n.div_ceil(GROUP).min(MOST_GROUPS), args) }
        }
    }

    /// Queues a kernel whose groups each do something together.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    pub unsafe fn groups(&self, kernel: &'static str, groups: usize, args: &Args) {
        if groups > 0 {
            // SAFETY: as the caller says.
            unsafe { self.launch(kernel, groups, args) }
        }
    }

    /// Queues a matrix product where the vendor's library does it; says whether.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    pub unsafe fn matmul(&self, product: &Matmul) -> bool {
        let inputs = product.inputs.map(|place| self.sent(place));
        let output = self.sent(product.output).cast_mut();
        // SAFETY: as the caller says.
        let is_done = unsafe { self.engine().matmul(&Matmul { inputs, output, ..*product }) };
        if is_done {
            self.written(product.output);
        }
        is_done
    }

    /// Queues a convolution where the vendor's library does it; says whether.
    ///
    /// # Safety
    ///
    /// As [`Engine::launch`].
    pub unsafe fn convolve(&self, convolution: &Convolution) -> bool {
        let inputs = convolution.inputs.map(|place| self.sent(place));
        let output = self.sent(convolution.output).cast_mut();
        // SAFETY: as the caller says.
        let done = unsafe { self.engine().convolve(&Convolution { inputs, output, ..*convolution }) };
        let mut counts = self.counts();
        match &done {
            Ok(()) => {
                counts.library += 1;
                self.written(convolution.output);
            }
            Err(why) => {
                let Convolution { direction, sizes, .. } = convolution;
                counts.own += 1;
                counts.reason.get_or_insert_with(|| format!("{direction:?} of {sizes:?}: {why}"));
            }
        }
        done.is_ok()
    }

    /// Waits until all that was queued is done; see [`Engine::wait`].
    pub fn wait(&self) -> Result<()> {
        self.engine().wait()
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.name())
    }
}

/// What this machine lacks of `run.device`.
fn lacking(expected: impl fmt::Display, found: impl fmt::Display, action: impl fmt::Display) -> Refusal {
    Refusal::new("run.device", expected, found, action).with_exit(Exit::Lacking)
}
