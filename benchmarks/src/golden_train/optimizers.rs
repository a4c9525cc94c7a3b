//! Optimizers over their steps, the moving average, clipping, learning rates.

use kd_trainer::exec::{Parameter, Real, Role};
use kd_trainer::ops::kernels::buffer::Buffer;
use kd_trainer::optim::schedule::SCHEDULES;
use kd_trainer::optim::{adamw, average, clip, dot as dot_optimizer, rmsprop, sgd};
use kd_trainer::options::{Options, Setting};

use super::{Case, Failure, Outcome, compare};

pub fn optimizer(case: &Case) -> Result<Outcome, Failure> {
    if case.is_f32() { optimize::<f32>(case, 2e-6) } else { optimize::<f64>(case, 1e-10) }
}

fn optimize<T: Real>(case: &Case, tolerance: f64) -> Result<Outcome, Failure> {
    let mut p: Vec<T> = case.get("p0")?.cast();
    let gradients: Vec<T> = case.get("g")?.cast();
    let (mut m, mut v) = (vec![T::ZERO; p.len()], vec![T::ZERO; p.len()]);
    let kind = case.text("kind");
    let decay = case.number("weight_decay")?;
    let state = rmsprop::State::new(&Buffer::default(), p.len(), case.flag("centered"), true);
    let mut state = state.map_err(|e| e.to_string())?;
    let mut found = Vec::with_capacity(gradients.len());
    for (i, g) in gradients.chunks_exact(p.len()).enumerate() {
        let lr = case.number("lr")?;
        if kind == "sgd" {
            let step = sgd::Step {
                lr: T::from_f64(lr),
                momentum: T::from_f64(case.number("momentum")?),
                dampening: T::from_f64(case.number("dampening")?),
                nesterov: case.flag("nesterov"),
                decay: T::from_f64(decay),
                first: i == 0,
            };
            sgd::update(&mut p, g, &mut m, &step);
        } else if kind == "rmsprop" {
            let step = rmsprop::Step {
                lr: T::from_f64(lr),
                alpha: T::from_f64(case.number("alpha")?),
                epsilon: T::from_f64(case.number("eps")?),
                momentum: T::from_f64(case.number("momentum")?),
                decay: T::from_f64(decay),
            };
            rmsprop::update(&mut p, g, &mut state, &step);
        } else {
            let decay = match kind {
                "adam" => adamw::Decay::Coupled(decay),
                "adamw" => adamw::Decay::Apart(decay),
                other => return Ok(Outcome::NotBuilt(format!("no optimizer is {other}"))),
            };
            let beta = |i: usize| case.hyper["betas"][i].as_f64().ok_or("no `betas`");
            let step = adamw::Step::new(lr, [beta(0)?, beta(1)?], case.number("eps")?, decay, i + 1);
            adamw::update(&mut p, g, &mut m, &mut v, &step);
        }
        found.extend_from_slice(&p);
    }
    compare(case, "p", &found, tolerance).map(Outcome::Equal)
}

/// Two momenta; the case's momentum and delta are their mean and half their difference.
pub fn dot(case: &Case) -> Result<Outcome, Failure> {
    let number = |key: &str| case.hyper["params"][key].as_f64().ok_or_else(|| format!("no number `{key}`"));
    let (momentum, delta) = (number("momentum")?, number("delta")?);
    let step = dot_optimizer::Step {
        lr: number("lr")?,
        momenta: [momentum - delta, momentum + delta],
        decay: number("weight_decay")?,
    };
    let mut p: Vec<f64> = case.get("p0")?.cast();
    let (mut v_task, mut v_distill) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let mut found = Vec::new();
    for i in 0..number("steps")? as usize {
        let [g_task, g_distill] = [case.get(&format!("g_task{i}"))?, case.get(&format!("g_kd{i}"))?];
        let gradients = [&g_task.values[..], &g_distill.values[..]];
        dot_optimizer::update(&mut p, gradients, [&mut v_task, &mut v_distill], &step);
        found.extend_from_slice(&p);
    }
    let trajectory = compare(case, "out.trajectory", &found, 1e-12)?;
    let velocities = [compare(case, "out.buf_task", &v_task, 1e-12)?, compare(case, "out.buf_kd", &v_distill, 1e-12)?];
    Ok(Outcome::Equal(velocities.into_iter().fold(trajectory, f64::max)))
}

/// The moving average of twenty steps.
pub fn average(case: &Case) -> Result<Outcome, Failure> {
    let (decay, warmup) = (case.number("decay")?, case.flag("warmup"));
    let mut mean: Vec<f64> = case.get("p0")?.cast();
    let mut found = Vec::new();
    for (t, p) in case.get("p")?.values.chunks_exact(mean.len()).enumerate() {
        average::update(&mut mean, p, average::decay_at(decay, warmup, t + 1));
        found.extend_from_slice(&mean);
    }
    compare(case, "ema", &found, 1e-12).map(Outcome::Equal)
}

pub fn grad_clip(case: &Case) -> Result<Outcome, Failure> {
    let mut parameters: Vec<Parameter<f64>> = Vec::new();
    while let Some(g) = case.optional(&format!("g{}", parameters.len())) {
        let (name, value) = (parameters.len().to_string(), vec![0.0; g.values.len()].into());
        let gradient = g.cast().into();
        parameters.push(Parameter { name, shape: g.shape.clone(), role: Role::Weight, value, gradient });
    }
    let mut worst = 0.0_f64;
    if case.text("kind") == "value" {
        clip::values(&mut parameters, &mut [], case.number("clip")?);
    } else {
        let norm = clip::global_norm(&mut parameters, &mut [], case.number("max_norm")?);
        worst = compare(case, "norm", &[norm], 1e-10)?;
    }
    for (i, p) in parameters.iter().enumerate() {
        worst = worst.max(compare(case, &format!("out{i}"), &p.gradient, 1e-10)?);
    }
    Ok(Outcome::Equal(worst))
}

/// A schedule's name and the options that a case sets.
type Chosen = (&'static str, Vec<(&'static str, Setting)>);

/// The schedule that a case means and its options, in epochs of one step.
fn chosen(case: &Case) -> Result<Option<Chosen>, Failure> {
    let number = |key: &str| case.number(key).map(Setting::Number);
    let least = |key: &str| Ok::<_, Failure>(Setting::Number(case.number(key)? / case.number("base_lr")?));
    Ok(Some(match case.text("kind") {
        "multistep" => {
            ("multistep", vec![("milestones", Setting::Counts(case.sizes("milestones"))), ("gamma", number("gamma")?)])
        }
        "step" => {
            let size = case.number("step_size")? as usize;
            let milestones = (size..case.get("lr")?.values.len()).step_by(size.max(1)).collect();
            ("multistep", vec![("milestones", Setting::Counts(milestones)), ("gamma", number("gamma")?)])
        }
        "cosine" => ("cosine", vec![("least", least("eta_min")?)]),
        "linear_warmup" => {
            let epochs = ("warmup_epochs", number("total_iters")?);
            ("constant", vec![epochs, ("warmup_start", number("start_factor")?)])
        }
        "warmup_cosine" => {
            let epochs = ("warmup_epochs", number("warmup")?);
            ("cosine", vec![("least", least("eta_min")?), epochs, ("warmup_start", number("start_factor")?)])
        }
        "exponential" => ("exponential", vec![("gamma", number("gamma")?)]),
        "polynomial" => ("polynomial", vec![("power", number("power")?)]),
        "one_cycle" => {
            let anneal = if case.text("anneal") == "linear" { "linear" } else { "cosine" };
            let options = vec![
                ("rise", number("pct_start")?),
                ("div", number("div_factor")?),
                ("final_div", number("final_div_factor")?),
                ("anneal", Setting::Text(anneal.to_string())),
                ("three_phase", Setting::Flag(case.flag("three_phase"))),
            ];
            ("one_cycle", options)
        }
        _ => return Ok(None),
    }))
}

/// The learning rate at each step; torch's momentum of one-cycle is not ours (it stays as it is).
pub fn schedule(case: &Case) -> Result<Outcome, Failure> {
    let Some((name, settings)) = chosen(case)? else {
        return Ok(Outcome::NotBuilt(format!("no recipe asks for {}", case.text("kind"))));
    };
    let kind = SCHEDULES.iter().find(|kind| kind.name == name).ok_or("no such schedule")?;
    let mut options = Options::defaults(kind.options);
    for (key, setting) in settings {
        options = options.with(key, setting);
    }
    let rates = case.get("lr")?.values.len();
    // Torch counts the steps of a cosine without the warm-up, and of one-cycle in all.
    let steps = match case.text("kind") {
        "one_cycle" => case.number("total_steps")? as usize,
        "polynomial" => case.number("total_iters")? as usize,
        "cosine" => case.number("t_max")? as usize,
        "warmup_cosine" => (case.number("t_max")? + case.number("warmup")?) as usize,
        _ => rates,
    };
    let base = case.number("base_lr")?;
    let found: Vec<f64> = (0..rates).map(|step| base * (kind.factor)(&options, step, steps, 1)).collect();
    compare(case, "lr", &found, 1e-10).map(Outcome::Equal)
}
