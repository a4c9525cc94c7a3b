//! Convolutions by NVIDIA's library: descriptors, algorithm and workspace are chosen once a shape and direction.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use cudarc::cudnn::result::{self as cudnn, CudnnError};
use cudarc::cudnn::sys;
use cudarc::driver::{CudaStream, DriverError, result as driver, sys as driver_sys};

use super::{Convolution, Direction, Precision};

/// The library with what it was asked before.
pub struct Cudnn {
    handle: sys::cudnnHandle_t,
    /// `None`: it does not do this one.
    plans: BTreeMap<([usize; 17], Direction), Option<Plan>>,
    precision: Precision,
    /// Of all convolutions, one after another: place and bytes.
    workspace: (driver_sys::CUdeviceptr, usize),
}

// SAFETY: used with the state of its device locked.
unsafe impl Send for Cudnn {}

/// A convolution at its sizes. Descriptors live as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
    algorithm: Algorithm,
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weights(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Algorithms that the library names at most.
const MOST: usize = 16;
/// What an algorithm may have of the GPU's memory.
const MOST_BYTES: usize = 1 << 30;

impl Cudnn {
    /// Opens the library for a stream.
    pub fn new(stream: &CudaStream, precision: Precision) -> Result<Self, CudnnError> {
        let handle = cudnn::create_handle()?;
        // SAFETY: a handle and a stream that were just made; both types are pointers to the same thing.
        unsafe { cudnn::set_stream(handle, stream.cu_stream().cast()) }?;
        Ok(Self { handle, plans: BTreeMap::new(), precision, workspace: (0, 0) })
    }

    /// Queues a convolution if the library does it; says whether.
    ///
    /// # Safety
    ///
    /// As [`Engine::convolve`](super::Engine::convolve).
    pub unsafe fn convolve(&mut self, asked: &Convolution, stream: &CudaStream) -> Result<bool, CudnnError> {
        let key = (asked.sizes, asked.direction);
        if !self.plans.contains_key(&key) {
            let plan = plan(self.handle, asked, self.precision).ok().flatten();
            let plan = plan.filter(|plan| self.make_room(plan.bytes, stream).is_ok());
            self.plans.insert(key, plan);
        }
        let Some(Some(plan)) = self.plans.get(&key).copied() else { return Ok(false) };
        let (alpha, beta) = (1.0_f32, if asked.add { 1.0_f32 } else { 0.0 });
        let (alpha, beta): (*const c_void, *const c_void) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let ([a, b], to) = (asked.inputs, asked.output);
        let (room, bytes) = (self.workspace.0 as *mut c_void, plan.bytes);
        let Plan { x, y, w, conv, .. } = plan;
        // SAFETY: as the caller says; descriptors are those of the sizes.
        let done = unsafe {
            match plan.algorithm {
                Algorithm::Forward(by) => {
                    cudnn::convolution_forward(self.handle, alpha, x, a, w, b, conv, by, room, bytes, beta, y, to)
                }
                Algorithm::Input(by) => {
                    cudnn::convolution_backward_data(self.handle, alpha, w, b, y, a, conv, by, room, bytes, beta, x, to)
                }
                Algorithm::Weights(by) => cudnn::convolution_backward_filter(
                    self.handle,
                    alpha,
                    x,
                    b,
                    y,
                    a,
                    conv,
                    by,
                    room,
                    bytes,
                    beta,
                    w,
                    to,
                ),
            }
        };
        match done {
            Err(error) if is_unsupported(error) => {
                self.plans.insert(key, None);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// A workspace of at least so many bytes; the old one is not in use any more when it is given back.
    fn make_room(&mut self, bytes: usize, stream: &CudaStream) -> Result<(), DriverError> {
        if bytes <= self.workspace.1 {
            return Ok(());
        }
        // SAFETY: the old one was allocated here, and the stream is done with it when it is given back.
        unsafe {
            let room = driver::malloc_sync(bytes)?;
            let (old, old_bytes) = std::mem::replace(&mut self.workspace, (room, bytes));
            stream.synchronize()?;
            if old_bytes > 0 { driver::free_sync(old) } else { Ok(()) }
        }
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: made and allocated here, used no more; the context of the device is current.
        unsafe {
            if self.workspace.1 > 0 {
                driver::free_sync(self.workspace.0).ok();
            }
            cudnn::destroy_handle(self.handle).ok();
        }
    }
}

/// Whether our own kernel has to do it.
fn is_unsupported(CudnnError(status): CudnnError) -> bool {
    // 3000 and what follows: NOT_SUPPORTED and its reasons.
    (3000..4000).contains(&(status as u32))
}

/// How the library does a convolution; `None` if it cannot: pads that differ so that the sizes are not its own.
fn plan(handle: sys::cudnnHandle_t, asked: &Convolution, precision: Precision) -> Result<Option<Plan>, CudnnError> {
    use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
    const FLOAT: sys::cudnnDataType_t = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    let Some(sizes) = whole(&asked.sizes) else { return Ok(None) };
    let [n, h, wide, c, oh, ow, m, cg, mg, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x] = sizes;
    let out = |size, pad, kernel, stride, dilation| (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
    if out(h, pad_y, kh, stride_y, dilation_y) != oh || out(wide, pad_x, kw, stride_x, dilation_x) != ow {
        return Ok(None);
    }
    // SAFETY: descriptors that are made here, and set before they are used.
    unsafe {
        let (x, y) = (cudnn::create_tensor_descriptor()?, cudnn::create_tensor_descriptor()?);
        let (w, conv) = (cudnn::create_filter_descriptor()?, cudnn::create_convolution_descriptor()?);
        cudnn::set_tensor4d_descriptor(x, CUDNN_TENSOR_NHWC, FLOAT, [n, c, h, wide])?;
        cudnn::set_tensor4d_descriptor(y, CUDNN_TENSOR_NHWC, FLOAT, [n, m, oh, ow])?;
        cudnn::set_filter4d_descriptor(w, FLOAT, CUDNN_TENSOR_NHWC, [m, cg, kh, kw])?;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        cudnn::set_convolution2d_descriptor(
            conv, pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x, mode, FLOAT,
        )?;
        cudnn::set_convolution_group_count(conv, m / mg)?;
        let math = match precision {
            Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            Precision::Tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        cudnn::set_convolution_math_type(conv, math)?;
        let chosen = choose(handle, asked.direction, x, y, w, conv)?;
        Ok(chosen.map(|(algorithm, bytes)| Plan { x, y, w, conv, algorithm, bytes }))
    }
}

/// The sizes as the library takes them.
fn whole(sizes: &[usize; 17]) -> Option<[c_int; 17]> {
    let mut whole = [0; 17];
    for (to, &size) in whole.iter_mut().zip(sizes) {
        *to = c_int::try_from(size).ok()?;
    }
    Some(whole)
}

/// The fastest algorithm, by the library's own judgement, that gives the same bits every time; and its workspace.
///
/// # Safety
///
/// Descriptors that are set.
unsafe fn choose(
    handle: sys::cudnnHandle_t,
    direction: Direction,
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
) -> Result<Option<(Algorithm, usize)>, CudnnError> {
    use sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
    use sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS;
    let (most, mut count) = (MOST as c_int, 0);
    macro_rules! fastest {
        ($ask:path, $room:path, $kind:path, $($of:expr),+) => {{
            // SAFETY: an array of plain numbers.
            let mut found: [_; MOST] = unsafe { std::mem::zeroed() };
            // SAFETY: as the caller says; room for so many answers.
            unsafe { $ask(handle, $($of,)+ most, &mut count, found.as_mut_ptr()) }?;
            let all = found.iter().take(usize::try_from(count).unwrap_or(0).min(MOST));
            let fit = all.filter(|one| one.status == CUDNN_STATUS_SUCCESS && one.determinism == CUDNN_DETERMINISTIC);
            // The room it names itself is that of its own way to multiply, which may not be the descriptor's.
            let mut rooms = fit.filter_map(|one| {
                // SAFETY: as the caller says.
                let bytes = unsafe { $room(handle, $($of,)+ one.algo) }.ok()?;
                (bytes <= MOST_BYTES).then_some(($kind(one.algo), bytes))
            });
            rooms.next()
        }};
    }
    Ok(match direction {
        Direction::Forward => fastest!(
            cudnn::get_convolution_forward_algorithm,
            cudnn::get_convolution_forward_workspace_size,
            Algorithm::Forward,
            x,
            w,
            conv,
            y
        ),
        Direction::Input => fastest!(
            cudnn::get_convolution_backward_data_algorithm,
            cudnn::get_convolution_backward_data_workspace_size,
            Algorithm::Input,
            w,
            y,
            conv,
            x
        ),
        Direction::Weights => fastest!(
            cudnn::get_convolution_backward_filter_algorithm,
            cudnn::get_convolution_backward_filter_workspace_size,
            Algorithm::Weights,
            x,
            y,
            conv,
            w
        ),
    })
}
