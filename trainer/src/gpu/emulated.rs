//! The kernels compiled for the host, as strict as a GPU is: what they read and write lies in memory of their own, they run when
//! somebody waits for them, and a kernel that runs past the end of an array dies.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kd_runtime::Result;

use super::{Args, Convolution, Direction, Engine, Gpu, Matmul, source};
use crate::exec::{Compute, cases};
use crate::selftest;

/// Threads of a group, as in `emulated.c`.
const THREADS: usize = 8;

/// A function of `emulated.c`.
type Emulate = unsafe extern "C" fn(*mut c_void, i64, *const Args, i32);

/// The library that was compiled, and its `emulate`.
struct Library {
    handle: *mut c_void,
    emulate: Emulate,
}

// SAFETY: the handle of a library that stays open may be used by all threads.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// One after another: `emulate` keeps its threads in statics.
static RUNNING: Mutex<()> = Mutex::new(());

static LAUNCHED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// What is queued.
enum Task {
    Kernel(*mut c_void, i64, Box<Args>),
    /// To an address, these bytes.
    Upload(u64, Vec<u8>),
    Product(Matmul),
    Convolution(Convolution),
}

#[derive(Default)]
struct State {
    /// Begin of each allocation, and of the pages that it lies in, with their bytes.
    allocations: BTreeMap<usize, (usize, usize, usize)>,
    queue: Vec<Task>,
}

// SAFETY: the queue's pointers are those of a library that stays open.
unsafe impl Send for State {}

/// A GPU that is none.
pub struct Emulated {
    library: &'static Library,
    state: Mutex<State>,
    backwards: bool,
    /// Whether matrix products and convolutions are those of libraries, which know no more of them than they are told.
    has_libraries: bool,
    downloaded: Arc<AtomicUsize>,
}

impl Emulated {
    /// Threads of a group take their turns in order, or backwards: what differs then is a race.
    pub fn gpu(backwards: bool) -> Gpu {
        Self::counted(backwards).0
    }

    /// The same, with the count of bytes that the host copies from it.
    pub fn counted(backwards: bool) -> (Gpu, Arc<AtomicUsize>) {
        let engine = Self::new(backwards, false);
        let downloaded = engine.downloaded.clone();
        (Gpu::new(engine), downloaded)
    }

    fn new(backwards: bool, has_libraries: bool) -> Self {
        Self { library: library(), state: Mutex::default(), backwards, has_libraries, downloaded: Arc::default() }
    }

    /// The kernels that any of them has run.
    pub fn launched() -> BTreeSet<&'static str> {
        LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles all sources once a process.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("kd-kernels-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let (text, built): (PathBuf, PathBuf) = (folder.join("kernels.c"), folder.join("kernels.so"));
        let all: Vec<&str> = source::SOURCES.iter().map(|source| source.text).collect();
        std::fs::write(
            folder.join("sources.h"),
            format!("{}\n{}\n{}", source::PRELUDE, source::PLACES, all.join("\n")),
        )
        .expect("room");
        std::fs::write(&text, include_str!("emulated.c")).expect("room");
        let mut compiler = Command::new("cc");
        compiler.args([
            "-O2",
            "-std=gnu11",
            "-ffp-contract=off",
            "-U_FORTIFY_SOURCE",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
        ]);
        let compiled = compiler.arg(&built).arg(&text).arg("-lm").output().expect("a C compiler, `cc`");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let path = CString::new(built.to_string_lossy().as_bytes()).expect("a path without NUL");
        // SAFETY: the library was just made; it has no initializers.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{} cannot be opened", built.display());
        let emulate = symbol(handle, "emulate");
        assert!(!emulate.is_null(), "emulated.c has `emulate`");
        std::fs::remove_dir_all(&folder).expect("what was just written");
        // SAFETY: `emulate` of emulated.c has this signature.
        Library { handle, emulate: unsafe { std::mem::transmute::<*mut c_void, Emulate>(emulate) } }
    })
}

fn symbol(handle: *mut c_void, name: &str) -> *mut c_void {
    let name = CString::new(name).expect("a name without NUL");
    // SAFETY: an open library and a name.
    unsafe { libc::dlsym(handle, name.as_ptr()) }
}

fn page() -> usize {
    // SAFETY: a question.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl Engine for Emulated {
    fn name(&self) -> String {
        "emulated".into()
    }

    fn threads(&self) -> usize {
        THREADS
    }

    fn free_bytes(&self) -> Option<usize> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        // The end of the last page, and one behind it that nobody may touch.
        let pages = bytes.next_multiple_of(page()).max(page());
        // SAFETY: new pages.
        let begin = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(null_mut(), pages + page(), access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        } as usize;
        assert_ne!(begin as isize, -1, "memory");
        // SAFETY: the last of those pages.
        assert_eq!(unsafe { libc::mprotect((begin + pages) as *mut c_void, page(), libc::PROT_NONE) }, 0);
        let place = begin + pages - bytes.next_multiple_of(8);
        self.state().allocations.insert(place, (begin, pages, bytes));
        Ok(place as u64)
    }

    unsafe fn free(&self, address: u64, _bytes: usize) {
        self.wait().expect("the kernels before");
        let (begin, pages, _) = self.state().allocations.remove(&(address as usize)).expect("memory of this engine");
        // SAFETY: pages of this engine, which nobody uses any more.
        assert_eq!(unsafe { libc::munmap(begin as *mut c_void, pages + page()) }, 0);
    }

    unsafe fn upload(&self, to: u64, from: *const u8, bytes: usize) {
        // SAFETY: as the caller says.
        let copy = unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec();
        self.state().queue.push(Task::Upload(to, copy));
    }

    unsafe fn download(&self, to: *mut u8, from: u64, bytes: usize) {
        self.wait().expect("the kernels before");
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to, bytes) };
    }

    unsafe fn launch(&self, kernel: &'static str, groups: usize, args: &Args) {
        let function = symbol(self.library.handle, kernel);
        assert!(!function.is_null(), "no kernel `{kernel}`");
        LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel);
        self.state().queue.push(Task::Kernel(function, groups as i64, Box::new(*args)));
    }

    /// Sees that a library would be told of the same elements.
    unsafe fn matmul(&self, product: &Matmul) -> bool {
        let [m, n, k] = product.sizes;
        let Some(leads) = product.leads() else { return false };
        let shapes = [[m, k], [k, n]];
        for ((is_transposed, lead), ([rows, columns], strides)) in
            leads.into_iter().zip(shapes.into_iter().zip(product.strides))
        {
            assert!(lead >= if is_transposed { rows } else { columns }, "{product:?}");
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let told = if is_transposed { column * lead + row } else { row * lead + column };
                assert_eq!(told, row * strides[0] + column * strides[1], "{product:?}");
            }
        }
        if self.has_libraries {
            self.state().queue.push(Task::Product(*product));
        }
        self.has_libraries
    }

    unsafe fn convolve(&self, convolution: &Convolution) -> std::result::Result<(), String> {
        if !self.has_libraries {
            return Err("no library".into());
        }
        if !convolution.is_even() {
            return Err("pads that differ".into());
        }
        self.state().queue.push(Task::Convolution(*convolution));
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let queue = std::mem::take(&mut self.state().queue);
        let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        for task in queue {
            match task {
                // SAFETY: a kernel of the library, with the arguments that it was launched with.
                Task::Kernel(function, groups, args) => unsafe {
                    (self.library.emulate)(function, groups, &*args, i32::from(self.backwards));
                },
                // SAFETY: an allocation of at least so many bytes.
                Task::Upload(to, bytes) => unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
                },
                // SAFETY: what the caller of `matmul` has promised.
                Task::Product(product) => unsafe { multiply(&product) },
                // SAFETY: what the caller of `convolve` has promised.
                Task::Convolution(convolution) => unsafe { convolve(&convolution) },
            }
        }
        Ok(())
    }
}

/// Writes numbers, or adds them to those that are there.
fn give(to: &mut [f32], sums: &[f64], add: bool) {
    for (to, sum) in to.iter_mut().zip(sums) {
        *to = if add { *to + *sum as f32 } else { *sum as f32 };
    }
}

/// A matrix product as cuBLAS does it, by rows of memory of which some are those of the transposed matrix.
///
/// # Safety
///
/// As [`Engine::launch`].
unsafe fn multiply(product: &Matmul) {
    let [m, n, k] = product.sizes;
    let place = |(is_transposed, lead): (bool, usize), row: usize, column: usize| {
        if is_transposed { column * lead + row } else { row * lead + column }
    };
    let [a, b] = product.leads().expect("asked before");
    for matrix in 0..product.batch {
        let from = [0, 1].map(|i| product.inputs[i].cast::<f32>().wrapping_add(matrix * product.steps[i]));
        let mut sums = vec![0.0; m * n];
        for (row, column, i) in (0..m * n).flat_map(|to| (0..k).map(move |i| (to / n, to % n, i))) {
            // SAFETY: as the caller says, elements of both matrices.
            let factors = unsafe { [*from[0].add(place(a, row, i)), *from[1].add(place(b, i, column))] };
            sums[row * n + column] += f64::from(product.alpha) * f64::from(factors[0]) * f64::from(factors[1]);
        }
        // SAFETY: as the caller says, a matrix of the output.
        let to = unsafe { std::slice::from_raw_parts_mut(product.output.cast::<f32>().add(matrix * m * n), m * n) };
        give(to, &sums, product.add);
    }
}

/// A convolution by cuDNN's definition: x and y are NHWC, weights KRSC, pads the same on both sides.
///
/// # Safety
///
/// As [`Engine::launch`].
unsafe fn convolve(asked: &Convolution) {
    let [images, h, w, c, oh, ow, m, cg, mg, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x] =
        asked.sizes;
    let (x, weights, y) = (images * h * w * c, m * kh * kw * cg, images * oh * ow * m);
    let lens = match asked.direction {
        Direction::Forward => [x, weights, y],
        Direction::Input => [y, weights, x],
        Direction::Weights => [y, x, weights],
    };
    let [a, b] = [0, 1].map(|i| {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(asked.inputs[i].cast::<f32>(), lens[i]) }
    });
    let mut sums = vec![0.0; lens[2]];
    let inside = |out: usize, stride: usize, tap: usize, dilation: usize, pad: usize, size: usize| {
        (out * stride + tap * dilation).checked_sub(pad).filter(|&at| at < size)
    };
    for of_y in 0..y {
        let (to, ox, oy, image) = (of_y % m, of_y / m % ow, of_y / m / ow % oh, of_y / m / ow / oh);
        for tap in 0..kh * kw {
            let row = inside(oy, stride_y, tap / kw, dilation_y, pad_y, h);
            let column = inside(ox, stride_x, tap % kw, dilation_x, pad_x, w);
            let (Some(row), Some(column)) = (row, column) else { continue };
            for channel in 0..cg {
                let of_x = ((image * h + row) * w + column) * c + to / mg * cg + channel;
                let of_w = (to * kh * kw + tap) * cg + channel;
                let [sum, i, j] = match asked.direction {
                    Direction::Forward => [of_y, of_x, of_w],
                    Direction::Input => [of_x, of_y, of_w],
                    Direction::Weights => [of_w, of_y, of_x],
                };
                sums[sum] += f64::from(a[i]) * f64::from(b[j]);
            }
        }
    }
    // SAFETY: as the caller says.
    give(unsafe { std::slice::from_raw_parts_mut(asked.output.cast::<f32>(), lens[2]) }, &sums, asked.add);
}

/// Every convolution of the cases can be told to a library that knows pads of one size alone, and what libraries are told
/// is all that they need.
#[test]
fn libraries_compute_what_the_host_does() {
    let gpu = Gpu::new(Emulated::new(false, true));
    let lines = selftest::operators(Compute { threads: 1, gpu: Some(&gpu) }, &cases::all()).unwrap();
    let failed: Vec<_> = lines.iter().flat_map(|line| &line.failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let done = gpu.convolutions();
    assert!(done.library > 0 && done.own == 0, "{done:?}");
}
