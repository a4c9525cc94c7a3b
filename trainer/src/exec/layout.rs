//! Where values and gradients lie: what may be overwritten in place, what is kept until when, which buffer that is.

use super::Real;
use super::buffers::{Interval, assign};
use super::program::{Origin, Program};
use crate::ops::Kernel;

/// No buffer.
pub const NOWHERE: usize = usize::MAX;

/// Buffers of a program, planned at its largest batch.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// For each root the buffer of its value.
    pub value: Vec<usize>,
    /// For each root the buffer of its gradient.
    pub gradient: Vec<usize>,
    /// For each step whether it overwrites its first input.
    pub in_place: Vec<bool>,
    /// For each step whether the gradient of its first input is written over that of its output.
    pub gradient_in_place: Vec<bool>,
    /// For each step and input: a buffer of its own for the gradient, where an earlier input is the same value.
    pub twins: Vec<Vec<usize>>,
    /// Elements of each buffer.
    pub sizes: Vec<usize>,
}

/// Lifetimes while they are collected.
struct Lives {
    intervals: Vec<Interval>,
    /// For each root the interval of its value, and of its gradient.
    value: Vec<usize>,
    gradient: Vec<usize>,
}

impl Lives {
    fn open(&mut self, from: usize, to: usize, size: usize) -> usize {
        self.intervals.push(Interval { from, to, size });
        self.intervals.len() - 1
    }

    fn extend(&mut self, interval: usize, time: usize) {
        if let Some(interval) = self.intervals.get_mut(interval) {
            interval.from = interval.from.min(time);
            interval.to = interval.to.max(time);
        }
    }
}

/// Plans the buffers. Step i runs forward at time i and backward at time 2n - i; `lens` are the roots' elements. With
/// `repeats` what a backward pass reads outlives it, so that another one may follow.
pub fn plan<T: Real>(
    program: &Program<T>,
    kernels: &[Option<Box<dyn Kernel<T>>>],
    lens: &[usize],
    repeats: bool,
) -> Layout {
    let n = program.steps.len();
    let back = |i: usize| 2 * n - i;
    let end = 2 * n + 1;
    let read_back = |i: usize| if repeats { end } else { back(i) };
    let values = program.root.len();
    let seen = {
        let mut seen = vec![false; values];
        program.taps.iter().for_each(|tap| seen[program.root[tap.index()]] = true);
        seen
    };
    let [in_place, gradient_in_place] = in_place(program, kernels, &seen);
    let mut lives = Lives { intervals: Vec::new(), value: vec![NOWHERE; values], gradient: vec![NOWHERE; values] };
    let mut twins = Vec::with_capacity(n);
    for (i, step) in program.steps.iter().enumerate() {
        let keeps = kernels[i].as_ref().map(|kernel| kernel.keeps()).unwrap_or_default();
        for (k, root) in step.inputs.iter().enumerate() {
            let Some(root) = *root else { continue };
            lives.extend(lives.value[root], i);
            if program.backward && k < 64 && keeps.inputs >> k & 1 == 1 {
                lives.extend(lives.value[root], read_back(i));
            }
        }
        for root in program.outputs(step) {
            if program.origin[root] != Origin::Computed {
                continue;
            }
            let first = step.inputs.first().copied().flatten().filter(|_| in_place[i]);
            lives.value[root] = match first {
                Some(first) => lives.value[first],
                None => lives.open(i, i, lens[root]),
            };
            if seen[root] {
                lives.extend(lives.value[root], end);
            }
            if program.backward && program.needs[root] {
                let first = step.inputs.first().copied().flatten().filter(|_| gradient_in_place[i]);
                lives.gradient[root] = match first {
                    Some(first) if lives.gradient[first] != NOWHERE => lives.gradient[first],
                    _ => lives.open(back(i), back(i), lens[root]),
                };
                lives.extend(lives.gradient[root], back(i));
                if seen[root] {
                    lives.extend(lives.gradient[root], n);
                }
            }
            if program.backward && keeps.output {
                lives.extend(lives.value[root], read_back(i));
            }
        }
        twins.push(gradients_of_inputs(program, i, lens, &mut lives, back(i)));
    }
    let (places, sizes) = assign(&lives.intervals);
    let place = |interval: &usize| places.get(*interval).copied().unwrap_or(NOWHERE);
    Layout {
        value: lives.value.iter().map(place).collect(),
        gradient: lives.gradient.iter().map(place).collect(),
        in_place,
        gradient_in_place,
        twins: twins.iter().map(|list| list.iter().map(place).collect()).collect(),
        sizes,
    }
}

/// Keeps the gradients that a step writes alive, and opens buffers for inputs that are the same value twice.
fn gradients_of_inputs<T: Real>(
    program: &Program<T>,
    i: usize,
    lens: &[usize],
    lives: &mut Lives,
    time: usize,
) -> Vec<usize> {
    let step = &program.steps[i];
    let mut twins = vec![NOWHERE; step.inputs.len()];
    for (k, root) in step.inputs.iter().enumerate() {
        let Some(root) = *root else { continue };
        if !step.wanted[k] {
            continue;
        }
        lives.extend(lives.gradient[root], time);
        let again = (0..k).any(|j| step.wanted[j] && step.inputs[j] == Some(root));
        if again {
            twins[k] = lives.open(time, time, lens[root]);
        }
    }
    twins
}

/// For each step whether it may overwrite its first input (nobody else reads it, and no backward pass needs it), and
/// whether the input's gradient may be written over the output's (nobody else adds to it).
fn in_place<T: Real>(program: &Program<T>, kernels: &[Option<Box<dyn Kernel<T>>>], seen: &[bool]) -> [Vec<bool>; 2] {
    let mut readers = vec![0_usize; program.root.len()];
    let mut kept_by_producer = vec![false; program.root.len()];
    for (step, kernel) in program.steps.iter().zip(kernels) {
        step.inputs.iter().flatten().for_each(|&root| readers[root] += 1);
        let keeps_output = kernel.as_ref().is_some_and(|kernel| kernel.keeps().output);
        kept_by_producer[step.output] = program.backward && keeps_output;
    }
    let own = |root: usize| program.origin[root] == Origin::Computed && readers[root] == 1 && !seen[root];
    let mut both = [Vec::with_capacity(kernels.len()), Vec::with_capacity(kernels.len())];
    for (step, kernel) in program.steps.iter().zip(kernels) {
        let first = step.inputs.first().copied().flatten().filter(|&first| own(first));
        let gradient_fits = first.is_some_and(|first| program.needs[first] == program.needs[step.output]);
        let value = first.is_some_and(|first| !kept_by_producer[first])
            && (gradient_fits || !program.backward)
            && kernel.as_ref().is_some_and(|k| k.in_place() && k.keeps().inputs & 1 == 0);
        let gradient = program.backward && gradient_fits && kernel.as_ref().is_some_and(|k| k.gradient_in_place());
        both[0].push(value);
        // A kernel that has overwritten its input knows no other way back.
        both[1].push(value || (gradient && !kernel.as_ref().is_some_and(|k| k.in_place())));
    }
    both
}
