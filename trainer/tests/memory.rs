//! Memory while training: what a step takes it gives back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use kd_trainer::exec::{Executor, Mode, Plan};
use kd_trainer::losses::ce::{Labels, Targets, cross_entropy};
use kd_trainer::losses::rkd_a;
use kd_trainer::losses::rows::Reduction;
use kd_trainer::optim::{adamw, groups, sgd};
use kd_trainer::options::Options;
use kd_trainer::recipe::Choice;
use kd_trainer::zoo::{self, Site, table::ARCHS};

/// The system's allocator, counting.
struct Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);
/// The most there ever were.
static PEAK: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed) + layout.size() as i64;
        PEAK.fetch_max(bytes, Ordering::Relaxed);
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: all count the same bytes.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn angles_of_a_large_batch_take_memory_by_its_square_and_not_its_cube() {
    let _alone = ALONE.lock().unwrap();
    let (batch, columns) = (512, 512);
    let rows = |by: f32| (0..batch * columns).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
    let (student, teacher, mut d) = (rows(0.7), rows(0.3), vec![0.0_f32; batch * columns]);
    let form = rkd_a::Form { official_zero: false, reduction: "mean".into(), l2norm: false };
    let before = BYTES.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let value = rkd_a::angles([&student, &teacher], [columns; 2], &form, &mut d);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert!(value > 0.0 && d.iter().all(|d| d.is_finite()), "{value}");
    // 512³ floats would be half a GiB.
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
}

#[test]
fn two_thousand_steps_leave_no_memory_behind() {
    let _alone = ALONE.lock().unwrap();
    for (arch, build) in [("resnet8", sgd::build as kd_trainer::optim::Build), ("ds_cnn", adamw::build)] {
        let row = ARCHS.iter().find(|row| row.name == arch).unwrap();
        let choice = Choice { name: row.name, options: Options::defaults(row.options) };
        let graph = zoo::build(&choice, &Site { input: vec![1, 8, 8], classes: 3 }, 1).unwrap();
        let plan = Plan { batch: 2, taps: Vec::new(), backward: true, threads: 2, gpu: None };
        let mut executor = Executor::<f32>::new(&graph, &plan).unwrap();
        let options = if arch == "resnet8" { sgd::OPTIONS } else { adamw::OPTIONS };
        let rules = groups::rules(executor.parameters(), &[], true);
        let mut optimizer = build(&Options::defaults(options), executor.parameters(), &rules).unwrap();
        let x: Vec<f32> = (0..2 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut d_logits = vec![0.0; 2 * 3];
        let mut step = |seed: u64| {
            executor.forward(&x, 2, Mode::Train { seed }).unwrap();
            let logits = executor.tap("logits").unwrap();
            let labels = Labels { classes: &[0, 2], mixed: &[] };
            cross_entropy(executor.value(logits), labels, 3, &Targets::default(), Reduction::BatchMean, &mut d_logits);
            executor.backward(&[(logits, &d_logits)]).unwrap();
            executor.update(|parameters| optimizer.step(parameters, &[], &[], 1e-3));
        };
        let held = || (BYTES.load(Ordering::Relaxed), BLOCKS.load(Ordering::Relaxed));
        (0..10).for_each(&mut step);
        let before = held();
        (10..2010).for_each(&mut step);
        assert_eq!(held(), before, "{arch}: bytes and blocks after 10 and after 2,010 steps");
    }
}
