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

use super::{Args, Engine, Gpu, Matmul, source};

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
    downloaded: Arc<AtomicUsize>,
}

impl Emulated {
    /// Threads of a group take their turns in order, or backwards: what differs then is a race.
    pub fn gpu(backwards: bool) -> Gpu {
        Self::counted(backwards).0
    }

    /// The same, with the count of bytes that the host copies from it.
    pub fn counted(backwards: bool) -> (Gpu, Arc<AtomicUsize>) {
        let downloaded = Arc::new(AtomicUsize::new(0));
        let engine = Self { library: library(), state: Mutex::default(), backwards, downloaded: downloaded.clone() };
        (Gpu::new(engine), downloaded)
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

    /// Multiplies nothing, but sees that a library would be told of the same elements.
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
        false
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
            }
        }
        Ok(())
    }
}
