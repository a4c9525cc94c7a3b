//! The teacher's classifier on the student's features.

use std::cell::{OnceCell, RefCell};

use kd_runtime::graph::Graph;
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::pair::LOGITS;
use super::taps::{STUDENT_FEATURES, TEACHER_FEATURES};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight, columns};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Kind, Options, Range, Spec};
use crate::zoo::layers::Conv;

/// The row of `srrl`.
pub static METHOD: Method = Method {
    name: "srrl",
    about: "the teacher's classifier on the student's features",
    cite: "Yang et al. 2021",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`feature · mean (h_student - h_teacher)² + answer · mean (W h_student - W h_teacher)²`: h are pooled \
        features, the student's behind a connector (1x1 convolution or linear layer to the teacher's width, batch \
        norm, ReLU; then the mean over places); W is the teacher's last linear layer, frozen. Where h_teacher may be \
        negative (`ts_transformer`, `lstm`, `gru`) the ReLU is left out, and a note says so. As published: 1 and 1 \
        (SimKD's repository), 1 and 5 (cls_KD); CE beside it.",
    source: "Yang, Martinez, Bulat, Tzimiropoulos 2021, Knowledge distillation via softmax regression representation learning (ICLR), eq. 2-5",
    weight: Weight { usual: 1.0, source: "SimKD's repository", forms: &[] },
    recipe: "terms = [{ method = \"srrl\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `srrl`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_FEATURES,
    TEACHER_FEATURES,
    Spec {
        name: "feature",
        about: "factor of the features' part",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
    Spec {
        name: "answer",
        about: "factor of the answers' part",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
];

/// Both parts: `mean (s - t)²` and `mean (W (s - t))²` of features `[batch, columns]`; `weight` is `[classes, columns]` (a bias
/// cancels). `d_student` is overwritten with the gradient of their sum with these factors. Yang et al. 2021, eq. 2-5.
pub fn regression<T: Real>(
    student: &[T],
    teacher: &[T],
    weight: &[T],
    columns: usize,
    [feature, answer]: [T; 2],
    d_student: &mut [T],
) -> [T; 2] {
    let batch = student.len() / columns.max(1);
    let classes = weight.len() / columns.max(1);
    let difference: Vec<T> = student.iter().zip(teacher).map(|(&s, &t)| s - t).collect();
    let (x, w) = (Matrix::rows(&difference, columns), Matrix::rows(weight, columns));
    let mut answers = vec![T::ZERO; batch * classes];
    multiply(&mut answers, x, w.t(), [batch, classes, columns], T::ONE, false);
    let mean = |values: &[T]| {
        let sum = values.iter().fold(0.0, |sum, x| sum + x.to_f64() * x.to_f64());
        T::from_f64(sum / values.len() as f64)
    };
    let two = T::from_f64(2.0);
    let by_feature = two * feature / T::from_usize(student.len());
    d_student.iter_mut().zip(&difference).for_each(|(d, &x)| *d = by_feature * x);
    let by_answer = two * answer / T::from_usize(answers.len());
    multiply(d_student, Matrix::rows(&answers, classes), w, [batch, columns, classes], by_answer, true);
    [mean(&difference), mean(&answers)]
}

struct Regression {
    student: [String; 1],
    teacher: [String; 1],
    /// `[classes, columns]`.
    weight: Vec<f32>,
    columns: usize,
    factors: [f32; 2],
    /// The weight on a GPU, when it is first asked, and what that keeps.
    sent: OnceCell<Buffer<f32>>,
    kept: RefCell<gpu::losses::srrl::Regression>,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (student, teacher) = pair.one(options.text("student"), options.text("teacher"))?;
    let width = teacher.elements();
    let weight = classifier(pair.teacher_graph()?, &pair.teacher(LOGITS)?.name, &teacher.name, width)?;
    let ends_in_relu = pair.teacher_is_never_negative(&teacher);
    let tap = pair.adapt(&student, |net, prefix| {
        let is_map = net.tail.shape.len() > 1;
        if is_map {
            net.conv(&format!("{prefix}.connected.conv"), &Conv::square(width, 1, 1))?;
        } else {
            net.linear(&format!("{prefix}.linear"), width)?;
        }
        let [normed, last] = if is_map { ["connected.pre", "connected"] } else { ["pre", "features"] };
        net.norm(&format!("{prefix}.{}", if ends_in_relu { normed } else { last }))?;
        if ends_in_relu {
            net.relu(&format!("{prefix}.{last}"));
        }
        if is_map {
            net.global_average(&format!("{prefix}.features"));
        }
        Ok(())
    })?;
    if !ends_in_relu {
        pair.note_no_relu("its connector", &[format!("the teacher's `{}`", teacher.name)]);
    }
    let factors = [options.number("feature") as f32, options.number("answer") as f32];
    let (student, teacher, sent, kept) = ([tap.name], [teacher.name], OnceCell::new(), RefCell::default());
    Ok(Box::new(Regression { student, teacher, weight, columns: width, factors, sent, kept }))
}

/// The weights `[classes, width]` of the linear layer that turns the value `features` into the answer. What changes no value
/// while a network is not trained (dropout, flattening) may lie between.
fn classifier(graph: &Graph, output: &str, features: &str, width: usize) -> Result<Vec<f32>> {
    let producers = graph.producers();
    let node = |id: kd_runtime::graph::ValueId| producers[id.index()].map(|i| &graph.nodes[i]);
    let refuse = |found: String| {
        let expected = format!("a linear layer from `{features}` to the teacher's answer");
        Refusal::new("srrl", expected, found, "choose a teacher that ends in one, or name its input as `teacher`")
    };
    let mut id = graph.find(output).ok_or_else(|| refuse("no answer".into()))?;
    let mut weight = None;
    // From the answer back; a graph is finite and has no cycle.
    while graph.value(id).name != features || weight.is_none() {
        let Some(node) = node(id) else { return Err(refuse(format!("`{}`", graph.value(id).name))) };
        let [first, second] = [node.input(0), node.input(1)];
        let (next, found) = match &node.op {
            Op::Gemm(gemm) if !gemm.trans_a && gemm.alpha == 1.0 => (first, Some((second, gemm.trans_b))),
            Op::MatMul(_) => (first, Some((second, false))),
            Op::Add(_) if graph.constant(second).is_some() => (first, None),
            Op::Add(_) if graph.constant(first).is_some() => (second, None),
            Op::Softmax(_) | Op::Dropout(_) | Op::Identity(_) | Op::Flatten(_) | Op::Reshape(_) => (first, None),
            _ => return Err(refuse(format!("`{}` of another kind", graph.value(id).name))),
        };
        if let Some((value, is_transposed)) = found {
            let tensor = graph.constant(value).and_then(|tensor| tensor.get::<f32>());
            match (tensor, weight.is_none()) {
                (Some(values), true) if values.len() % width.max(1) == 0 => {
                    weight = Some(if is_transposed { values.to_vec() } else { transposed(values, width) });
                }
                _ => return Err(refuse(format!("`{}` of other inputs", graph.value(id).name))),
            }
        }
        id = next.ok_or_else(|| refuse("a node without input".into()))?;
    }
    weight.ok_or_else(|| refuse("none".into()))
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    (0..columns).flat_map(|j| (0..rows).map(move |i| values[i * columns + j])).collect()
}

impl gpu::losses::Kernel for Regression {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        columns(&self.student[0], seen.student[0], seen.batch)?;
        columns(&self.teacher[0], seen.teacher[0], seen.batch)?;
        let sent = match self.sent.get() {
            Some(sent) => sent,
            None => {
                let moved = Buffer::moved(seen.gpu, &self.weight)?;
                self.sent.get_or_init(|| moved)
            }
        };
        self.kept.borrow_mut().distance(seen, sent.raw(), self.columns, self.factors, given)
    }
}

impl Loss for Regression {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
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
        columns(&self.student[0], student[0], batch)?;
        columns(&self.teacher[0], teacher[0], batch)?;
        let [feature, answer] =
            regression(student[0], teacher[0], &self.weight, self.columns, self.factors, d_student[0]);
        Ok(self.factors[0] * feature + self.factors[1] * answer)
    }
}
