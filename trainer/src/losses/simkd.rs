//! The teacher's classifier, reused.

use std::cell::RefCell;

use kd_runtime::{Refusal, Result};

use super::adapters::{Connector, layer, meet, student, teacher};
use super::fitnets::{Distance, squared_distance};
use super::joint::Joint;
use super::pair::LAST;
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Parameter;
use crate::gpu;
use crate::options::{Kind, Options, Spec};

/// The row of `simkd`.
pub static METHOD: Method = Method {
    name: "simkd",
    about: "the teacher's classifier on the student's projected features",
    cite: "Chen et al. 2022",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (P(s) - t)²` over all elements, with the projector `P`: 1x1, 3x3 and 1x1 convolutions (of vectors: linear \
        layers), each with batch norm and ReLU, the inner ones with the teacher's channels divided by `factor`. Where the teacher's value \
        may be negative (`ts_transformer`, `lstm`, `gru`, the stages of `mobilenet_v2` and `wrn`) the last ReLU is left out, and a note \
        says so: behind it the student could not reach that value. The student then answers \
        with a copy of the teacher's layers behind that tap, which is never trained; its own classifier is gone. Projector and \
        copy stay in the student, are exported, and count against its budget. The copy computes as the teacher in eval mode does, \
        its batch norms folded; where layers behind the last maps fit the teacher's size alone (a pooling window), both sides' \
        `features` are taken instead.\n\n\
        The authors use no other term: `task_weight = 0.0`, weight 1.",
    source: "Chen et al. 2022 (arXiv 2203.14001) eq. 3 and Fig. 3",
    weight: Weight { usual: 1.0, source: "the authors', beside nothing", forms: &[] },
    recipe: "task_weight = 0.0\nterms = [{ method = \"simkd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `simkd`.
pub static OPTIONS: &[Spec] = &[
    student("last"),
    teacher("last"),
    Spec {
        name: "factor",
        about: "what the teacher's channels are divided by inside the projector",
        kind: Kind::Count { default: 2, least: 1, most: 64 },
    },
];

struct Reused {
    student: [String; 1],
    teacher: [String; 1],
    joint: Joint,
    frozen: Vec<String>,
    kept: RefCell<gpu::losses::joint::Kept>,
}

/// The method `simkd`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let taps = [options.text("student"), options.text("teacher")];
    let mut tried = pair.clone();
    let reused = match reuse(&mut tried, taps, options) {
        Err(refusal) if taps == [LAST; 2] => {
            // Layers that take the last maps of the teacher alone: those behind its features take any student's.
            tried = pair.clone();
            let reused = reuse(&mut tried, ["features"; 2], options)?;
            let Refusal { expected, found, .. } = refusal;
            tried.notes.push(format!("takes `features` instead of the last maps: expected {expected}, found {found}"));
            Ok(reused)
        }
        reused => reused,
    }?;
    *pair = tried;
    Ok(Box::new(reused))
}

/// The student as it answers with the teacher's layers behind these taps.
fn reuse(pair: &mut Pair<'_>, [student, teacher]: [&str; 2], options: &Options) -> Result<Reused> {
    let taps = pair.taps(student, teacher)?;
    let [(from, to)] = &taps[..] else {
        let action = "name the last one before the classifier";
        return Err(Refusal::new("simkd", "one tap of each network", taps.len(), action));
    };
    let inner = (to.shape[0] / options.count("factor")).max(1);
    let ends_in_relu = pair.teacher_is_never_negative(to);
    let projected = pair.adapt(from, |net, prefix| {
        meet(net, prefix, &to.shape)?;
        for (i, channels, kernel) in [(1, inner, 1), (2, inner, 3), (3, to.shape[0], 1)] {
            let connector = Connector { kernel, relu: i < 3 || ends_in_relu, ..Connector::NORM };
            layer(net, &format!("{prefix}.{i}"), channels, connector)?;
        }
        Ok(())
    })?;
    let joint = Joint::common(&projected, to, false)?;
    let (answer, frozen) = pair.graft(&projected, to)?;
    if answer.shape != [pair.classes] {
        let found = format!("{:?}", answer.shape);
        return Err(Refusal::new("simkd", format!("answers [{}]", pair.classes), found, "choose another teacher"));
    }
    pair.answer_with(&answer)?;
    if !ends_in_relu {
        pair.note_no_relu("its projector", &[format!("the teacher's `{}`", to.name)]);
    }
    let kept = RefCell::default();
    Ok(Reused { student: [projected.name], teacher: [to.name.clone()], joint, frozen, kept })
}

impl gpu::losses::Kernel for Reused {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let (gpu, values) = (seen.gpu, [seen.student[0], seen.teacher[0]]);
        self.joint.check([&self.student[0], &self.teacher[0]], values, seen.batch)?;
        self.kept.borrow_mut().compare(gpu, self.joint.ways(), values, (0, false), given, |sides, given| {
            let factor = 1.0 / sides[0].len() as f32;
            gpu::losses::fitnets::total_distance(gpu, 0, false, sides, Distance::Squared, factor, given);
            Ok(())
        })
    }
}

impl Loss for Reused {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn frozen(&self) -> &[String] {
        &self.frozen
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        self.joint.check([&self.student[0], &self.teacher[0]], [student[0], teacher[0]], batch)?;
        Ok(self
            .joint
            .compare(student[0], teacher[0], d_student[0], |s, t, d| squared_distance(s, t, 1.0 / s.len() as f32, d)))
    }
}
