//! What optimizers, schedules and constraints keep.

use super::groups::{Group, rules};
use super::max_norm::constrain;
use super::schedule::SCHEDULES;
use super::table::OPTIMIZERS;
use super::{Count, Optimizer, clip};
use crate::exec::random::Stream;
use crate::exec::{Parameter, Role};
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Setting};

fn parameter(name: &str, role: Role, shape: &[usize], place: u64) -> Parameter<f32> {
    let stream = Stream::new(9, place);
    let n = shape.iter().product();
    let value: Vec<f32> = (0..n).map(|i| stream.uniform(i) - 0.5).collect();
    let gradient = if role.is_trained() { (0..n).map(|i| stream.uniform(n + i) - 0.5).collect() } else { vec![] };
    let (value, gradient) = (value.into(), gradient.into());
    Parameter { name: name.into(), shape: shape.to_vec(), role, value, gradient }
}

fn parameters() -> Vec<Parameter<f32>> {
    vec![
        parameter("w", Role::Weight, &[4, 3], 0),
        parameter("mean", Role::Statistic, &[4], 1),
        parameter("b", Role::BiasOrNorm, &[4], 2),
    ]
}

/// Gradients of the task, of the weights alone.
fn task(value: f32) -> Vec<Buffer<f32>> {
    [vec![value; 12], vec![], vec![]].map(Buffer::from).into()
}

/// Steps by gradients of noise; `task`: those of the task, apart.
fn run(
    optimizer: &mut dyn Optimizer,
    parameters: &mut [Parameter<f32>],
    task: &[Buffer<f32>],
    steps: std::ops::Range<u64>,
) {
    for step in steps {
        let stream = Stream::new(11, step);
        for p in parameters.iter_mut() {
            p.gradient.iter_mut().enumerate().for_each(|(i, g)| *g = stream.uniform(i) - 0.5);
        }
        optimizer.step(parameters, task, &[], 1.0 / (step + 1) as f64);
    }
}

/// A processor takes a hundred times as long for such numbers, and a decaying mean of nothing would keep them.
#[test]
fn no_state_keeps_denormal_numbers() {
    for kind in OPTIMIZERS {
        let mut parameters = parameters();
        let rules = rules(&parameters, &[], true);
        let task = if kind.splits { task(0.0) } else { vec![] };
        let mut optimizer = (kind.build)(&Options::defaults(kind.options), &parameters, &rules).unwrap();
        run(&mut *optimizer, &mut parameters, &task, 0..3);
        parameters.iter_mut().for_each(|p| p.gradient.fill(0.0));
        let mut kept = 0;
        for step in 0..120_000 {
            optimizer.step(&mut parameters, &task, &[], 0.0);
            if step % 10 == 0 {
                let denormal = |all: &[f32]| all.iter().filter(|x| x.is_subnormal()).count();
                kept += optimizer.state().iter().map(|(_, all)| denormal(all)).sum::<usize>();
            }
        }
        assert_eq!(kept, 0, "{}", kind.name);
    }
}

#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    for kind in OPTIMIZERS {
        let options = Options::defaults(kind.options);
        let (mut whole, mut parts) = (parameters(), parameters());
        let rules = rules(&whole, &[], true);
        // The bias has no gradient of the task.
        let task = if kind.splits { task(0.1) } else { vec![] };
        let mut optimizer = (kind.build)(&options, &whole, &rules).unwrap();
        run(&mut *optimizer, &mut whole, &task, 0..7);
        let mut first = (kind.build)(&options, &parts, &rules).unwrap();
        run(&mut *first, &mut parts, &task, 0..4);
        let saved: Vec<(String, Vec<f32>)> = first.state().into_iter().map(|(n, v)| (n, v.to_vec())).collect();
        assert!(saved.len() >= 2, "{}: one array at least of each parameter: {saved:?}", kind.name);
        let mut second = (kind.build)(&options, &parts, &rules).unwrap();
        for ((name, to), (saved_name, from)) in second.state_mut().into_iter().zip(&saved) {
            assert_eq!(name, *saved_name);
            to.copy_from_slice(from);
        }
        run(&mut *second, &mut parts, &task, 4..7);
        assert_eq!(whole, parts, "{}", kind.name);
    }
}

#[test]
fn decay_leaves_norms_and_biases_alone_if_asked_and_statistics_always() {
    for kind in OPTIMIZERS {
        let options = Options::defaults(kind.options).with("weight_decay", Setting::Number(0.1));
        for decay_all in [false, true] {
            let (before, mut after) = (parameters(), parameters());
            let mut optimizer = (kind.build)(&options, &after, &rules(&after, &[], decay_all)).unwrap();
            after.iter_mut().for_each(|p| p.gradient.fill(0.0));
            optimizer.step(&mut after, &[], &[], 1.0);
            let changed: Vec<bool> = before.iter().zip(&after).map(|(b, a)| b.value != a.value).collect();
            assert_eq!(changed, [true, false, decay_all], "{}", kind.name);
        }
    }
}

/// The deviation of what never changes is 0, or less by rounding.
#[test]
fn a_gradient_that_stays_what_it_is_has_no_deviation() {
    let kind = OPTIMIZERS.iter().find(|kind| kind.name == "rmsprop").unwrap();
    for alpha in [0.0, 0.3, 0.9] {
        let options = Options::defaults(kind.options)
            .with("alpha", Setting::Number(alpha))
            .with("centered", Setting::Flag(true))
            .with("lr", Setting::Number(1e-9));
        let mut all = parameters();
        let mut optimizer = (kind.build)(&options, &all, &rules(&all, &[], false)).unwrap();
        for step in 0..400 {
            all.iter_mut()
                .for_each(|p| p.gradient.iter_mut().enumerate().for_each(|(i, g)| *g = 0.1 + 0.037 * i as f32));
            optimizer.step(&mut all, &[], &[], 1.0);
            assert!(all.iter().all(|p| p.value.iter().all(|x| x.is_finite())), "alpha {alpha}, step {step}");
        }
    }
}

/// In a stage that reads the first layers alone the others do not decay, and begin in the next one as if it were the first.
#[test]
fn what_nothing_depends_on_stays_what_it_is() {
    for kind in OPTIMIZERS {
        let options = Options::defaults(kind.options).with("weight_decay", Setting::Number(0.1));
        let (mut all, mut fresh) = (parameters(), parameters());
        let rules = rules(&all, &[], true);
        let task = if kind.splits { task(0.1) } else { vec![] };
        let mut optimizer = (kind.build)(&options, &all, &rules).unwrap();
        let before = all.clone();
        for _ in 0..5 {
            optimizer.step(&mut all, &task, &[false, false, true], 1.0);
        }
        assert_eq!(all[0], before[0], "{}", kind.name);
        assert_ne!(all[2].value, before[2].value, "{}", kind.name);
        let mut another = (kind.build)(&options, &fresh, &rules).unwrap();
        for _ in 0..3 {
            optimizer.step(&mut all, &task, &[], 1.0);
            another.step(&mut fresh, &task, &[], 1.0);
        }
        assert_eq!(all[0].value, fresh[0].value, "{}: its first steps", kind.name);
    }
}

#[test]
fn groups_scale_the_rate_replace_the_decay_and_freeze() {
    let group = |pattern: &str| Group { pattern: pattern.into(), lr_factor: 1.0, weight_decay: None, frozen: false };
    for kind in OPTIMIZERS {
        let options = Options::defaults(kind.options).with("weight_decay", Setting::Number(0.0));
        let after = |groups: &[Group], still: bool| {
            let mut all = parameters();
            let mut optimizer = (kind.build)(&options, &all, &rules(&all, groups, false)).unwrap();
            if still {
                all.iter_mut().for_each(|p| p.gradient.fill(0.0));
            }
            optimizer.step(&mut all, &[], &[], 1.0);
            [all[0].value.clone(), all[2].value.clone()]
        };
        let [w, b] = [parameters()[0].value.clone(), parameters()[2].value.clone()];
        let plain = after(&[], false);
        let slow = after(&[Group { lr_factor: 0.25, ..group("w") }, group("*")], false);
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!((0..12).all(|i| close(slow[0][i] - w[i], 0.25 * (plain[0][i] - w[i]))), "{}: a quarter", kind.name);
        assert_eq!(slow[1], plain[1], "{}: the first group that matches counts", kind.name);
        let frozen = after(&[Group { frozen: true, ..group("?") }], false);
        assert_eq!(frozen, [w.clone(), b.clone()], "{}", kind.name);
        // A group's decay acts on biases whatever the recipe says of them.
        let decayed = after(&[Group { weight_decay: Some(0.5), ..group("b") }], true);
        assert!(decayed[0] == w && decayed[1] != b, "{}", kind.name);
    }
}

#[test]
fn without_a_gradient_of_the_task_dot_is_descent_with_the_mean_momentum() {
    let kind = |name: &str| OPTIMIZERS.iter().find(|kind| kind.name == name).unwrap();
    let numbers = [("lr", 0.05), ("momentum", 0.9), ("weight_decay", 0.01)];
    let plain = numbers.iter().fold(Options::defaults(kind("sgd").options), |o, &(n, x)| o.with(n, Setting::Number(x)));
    let numbers = [("lr", 0.05), ("task_momentum", 0.85), ("distill_momentum", 0.95), ("weight_decay", 0.01)];
    let dot = numbers.iter().fold(Options::defaults(kind("dot").options), |o, &(n, x)| o.with(n, Setting::Number(x)));
    let (mut a, mut b) = (parameters(), parameters());
    let rules = rules(&a, &[], true);
    let (mut sgd, mut dot) =
        ((kind("sgd").build)(&plain, &a, &rules).unwrap(), (kind("dot").build)(&dot, &b, &rules).unwrap());
    run(&mut *sgd, &mut a, &[], 0..4);
    run(&mut *dot, &mut b, &[vec![], vec![], vec![]].map(Buffer::from), 0..4);
    let off = a
        .iter()
        .zip(&b)
        .flat_map(|(a, b)| a.value.iter().zip(&b.value))
        .fold(0.0_f32, |o, (a, b)| o.max((a - b).abs()));
    assert!(off < 1e-6, "{off}");
}

#[test]
fn every_optimizer_declares_a_learning_rate() {
    for kind in OPTIMIZERS {
        let lr = kind.options.iter().find(|spec| spec.name == "lr").map(|spec| spec.kind);
        assert!(matches!(lr, Some(Kind::Number { default, .. }) if default > 0.0), "{}", kind.name);
    }
}

#[test]
fn warm_up_rises_in_every_schedule_and_then_leaves_it() {
    for kind in SCHEDULES {
        let plain = Options::defaults(kind.options);
        let warm = plain.clone().with("warmup_epochs", Setting::Number(2.0));
        let at = |step: usize| (kind.factor)(&warm, step, 1000, 5);
        let first = (kind.factor)(&plain, 0, 1000, 5);
        assert!((at(0) - 0.1 * first).abs() < 1e-12, "{}: {} of {first}", kind.name, at(0));
        assert!((0..10).all(|step| at(step) < at(step + 1) + 1e-15), "{}", kind.name);
        assert!((at(10) - first).abs() < 1e-3, "{}: {}", kind.name, at(10));
        assert!((0..=1000).all(|step| (0.0..=1.0 + 1e-12).contains(&at(step))), "{}", kind.name);
    }
}

#[test]
fn schedules_count_epochs() {
    let factor = |name: &str, options: &dyn Fn(Options) -> Options, step, steps, per_epoch| {
        let kind = SCHEDULES.iter().find(|kind| kind.name == name).unwrap();
        (kind.factor)(&options(Options::defaults(kind.options)), step, steps, per_epoch)
    };
    let milestones = |o: Options| o.with("milestones", Setting::Counts(vec![2, 4]));
    let found: Vec<f64> = (0..5).map(|epoch| factor("multistep", &milestones, epoch * 10 + 9, 50, 10)).collect();
    let expected = [1.0, 1.0, 0.1, 0.1, 0.01];
    assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
    assert!((factor("cosine", &|o| o, 25, 50, 10) - 0.5).abs() < 1e-12);
    assert_eq!(factor("cosine", &|o| o, 50, 50, 10), 0.0);
    let epochs = |o: Options| o.with("epochs", Setting::Number(2.0)).with("warmup_epochs", Setting::Number(1.0));
    let line = |o: Options| o.with("from", Setting::Number(0.2)).with("to", Setting::Number(2.2));
    let at = |name: &str, options: &dyn Fn(Options) -> Options| {
        [0, 5, 19, 20, 25, 30, 49].map(|step| factor(name, options, step, 50, 10))
    };
    let same = |found: [f64; 7], expected: [f64; 7]| found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12);
    assert!(same(at("until", &epochs), [0.1, 0.55, 1.0, 0.0, 0.0, 0.0, 0.0]), "{:?}", at("until", &epochs));
    assert!(same(at("from", &epochs), [0.0, 0.0, 0.0, 0.1, 0.55, 1.0, 1.0]), "{:?}", at("from", &epochs));
    assert!(same(at("linear", &line), [0.2, 0.4, 0.96, 1.0, 1.2, 1.4, 2.16]), "{:?}", at("linear", &line));
    // A run of one step, or shorter than its warm-up, has factors too.
    for kind in SCHEDULES {
        for steps in [1, 2] {
            let options = Options::defaults(kind.options).with("warmup_epochs", Setting::Number(1.0));
            assert!((0..steps).all(|step| (kind.factor)(&options, step, steps, 3).is_finite()), "{}", kind.name);
        }
    }
}

#[test]
fn max_norm_shortens_long_units_along_their_axis() {
    // Two units of lengths 5 and 0.5: as rows, and as columns.
    let rows = [3.0, 4.0, 0.3, 0.4];
    let columns = [3.0, 0.3, 4.0, 0.4];
    for (value, axis, expected) in [(rows, 0, [1.5, 2.0, 0.3, 0.4]), (columns, 1, [1.5, 0.3, 2.0, 0.4])] {
        let mut p = parameter("w", Role::Weight, &[2, 2], 0);
        p.value = value.to_vec().into();
        let mut bias = parameter("b", Role::BiasOrNorm, &[2], 0);
        bias.value = vec![100.0, 100.0].into();
        let mut all = [p, bias];
        constrain(&mut all, &[axis, 0], 2.5);
        assert_eq!(all[0].value[..], expected);
        assert_eq!(all[1].value[..], [100.0, 100.0]);
    }
}

#[test]
fn max_norm_is_that_of_each_unit_by_itself_for_any_shape_and_number_of_threads() {
    for (shape, axis) in [([1, 150, 3], 1), ([150, 1, 70], 0), ([5, 9, 1], 1), ([7, 3, 130], 1), ([1, 40, 200], 2)] {
        let limit = |n: usize| (n as f32 / 12.0).sqrt();
        let alone = |p: &Parameter<f32>| {
            let (units, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            let unit = |place: usize| place / inner % units;
            let mut value = p.value.to_vec();
            for u in 0..units {
                let own = |all: &[f32]| (0..all.len()).filter(|&i| unit(i) == u).collect::<Vec<_>>();
                let squares: f64 = own(&value).iter().map(|&i| f64::from(value[i]) * f64::from(value[i])).sum();
                let (norm, most) = (squares.sqrt(), limit(value.len() / units));
                if norm > f64::from(most) {
                    let factor = (f64::from(most) / norm) as f32;
                    own(&value).into_iter().for_each(|i| value[i] *= factor);
                }
            }
            value
        };
        for threads in [1, 3] {
            let mut all = [parameter("w", Role::Weight, &shape, 3)];
            let (before, expected) = (all[0].value.to_vec(), alone(&all[0]));
            let most = limit(before.len() / shape[axis]);
            crate::ops::kernels::threads::Threads::new(threads).unwrap().run(|| constrain(&mut all, &[axis], most));
            assert_eq!(all[0].value[..], expected, "{shape:?} {axis}");
            assert!(
                before != expected && before.iter().zip(&expected).any(|(a, b)| a == b),
                "some are long: {shape:?}"
            );
        }
    }
}

#[test]
fn clipping_is_over_all_parameters_and_keeps_what_is_not_finite() {
    let mut all = parameters();
    all[0].gradient.fill(0.0);
    all[0].gradient[0] = 3.0;
    all[2].gradient.fill(0.0);
    all[2].gradient[1] = 4.0;
    assert_eq!(clip::global_norm(&mut all, &mut [], 10.0), 5.0);
    assert_eq!((all[0].gradient[0], all[2].gradient[1]), (3.0, 4.0));
    clip::global_norm(&mut all, &mut [], 1.0);
    assert!((all[0].gradient[0] - 0.6).abs() < 1e-6 && (all[2].gradient[1] - 0.8).abs() < 1e-6);
    // Parts of one gradient are clipped by the norm of their sum: 0.6 + 2.4 = 3 and 0.8 + 3.2 = 4.
    let mut task = [vec![0.0; 12], vec![], vec![0.0; 4]].map(Buffer::from);
    (task[0][0], task[2][1]) = (2.4, 3.2);
    assert!((clip::global_norm(&mut all, &mut task, 2.5) - 5.0).abs() < 1e-5);
    assert!((all[0].gradient[0] - 0.3).abs() < 1e-6 && (task[2][1] - 1.6).abs() < 1e-6);
    // Each element by itself, and parts by their sum.
    (all[0].gradient[1], all[0].gradient[2], task[0][2]) = (-0.7, 0.75, 0.25);
    clip::values(&mut all, &mut task, 0.5);
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(close(all[0].gradient[1], -0.5) && close(all[0].gradient[2], 0.375) && close(task[0][2], 0.125));
    all[2].gradient[0] = f32::NAN;
    all[0].gradient[3] = 0.75;
    clip::values(&mut all, &mut [], 0.6);
    assert!(all[0].gradient[3] == 0.6 && all[2].gradient[0].is_nan());
    assert!(clip::global_norm(&mut all, &mut [], 0.1).is_nan());
    assert!(close(all[0].gradient[1], -0.5));
}

#[test]
fn counts_beyond_what_one_float_holds() {
    let mut count = Count([65_535.0, 511.0]);
    assert_eq!(count.get(), (1 << 25) - 1);
    count.increase();
    assert_eq!((count.get(), count.0), (1 << 25, [0.0, 512.0]));
}
