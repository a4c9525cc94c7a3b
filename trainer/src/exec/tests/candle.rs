//! candle at the edges.

use kd_runtime::ops;

use super::super::candle::{Tap, composed, from_tensors, load, save, to_tensors};
use super::super::cases::Net;
use super::super::{Executor, Plan};

fn executor() -> Executor<f32> {
    let mut net = Net::new("linear");
    let x = net.stem(&[4]);
    let (w, b) = (net.parameter(&[2, 4]), net.parameter(&[2]));
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let y = net.graph.apply(gemm, &[x, w, b], "logits");
    let graph = net.finish(y);
    Executor::new(&graph, &Plan { batch: 2, taps: vec![], backward: true, threads: 1, gpu: None }).unwrap()
}

#[test]
fn parameters_survive_a_safetensors_file() {
    let folder = std::env::temp_dir().join(format!("kd-candle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("parameters.safetensors");
    let mut executor = executor();
    let before = executor.parameters().to_vec();
    save(&before, &path).unwrap();
    executor.parameters_mut().iter_mut().for_each(|p| p.value.fill(0.0));
    load(executor.parameters_mut(), &path).unwrap();
    assert_eq!(executor.parameters(), before);
    std::fs::write(&path, b"no tensors").unwrap();
    assert!(load(executor.parameters_mut(), &path).is_err());
    assert_eq!(executor.parameters(), before);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn tensors_of_another_network_are_refused_as_a_whole() {
    let mut executor = executor();
    let before = executor.parameters().to_vec();
    let mut tensors = to_tensors(&before).unwrap();
    let last = before.last().unwrap().name.clone();
    let first = tensors.get_mut(&before[0].name).unwrap();
    *first = first.affine(0.0, 0.0).unwrap();
    tensors.insert(
        last.clone(),
        candle_core::Tensor::zeros(3, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
    );
    let message = from_tensors(executor.parameters_mut(), &tensors).unwrap_err().to_string();
    assert!(message.contains(&last) && message.contains("[2]") && message.contains("[3]"), "{message}");
    tensors.remove(&last);
    assert!(from_tensors(executor.parameters_mut(), &tensors).is_err());
    assert_eq!(executor.parameters(), before);
}

#[test]
fn a_composed_loss_has_candles_gradient() {
    let student = [0.5, -1.0, 2.0, 0.25, 3.0, -0.5_f32];
    let teacher = [0.0, 1.0, 2.0, 0.25, -1.0, 1.5_f32];
    let tap = |data| Tap { data, shape: &[2, 3] };
    let mut d = [f32::NAN; 6];
    let mse = |s: &[candle_core::Tensor], t: &[candle_core::Tensor]| (&s[0] - &t[0])?.sqr()?.mean_all();
    let value = composed(&[tap(&student)], &[tap(&teacher)], &mut [&mut d], mse).unwrap();
    let expected: f32 = student.iter().zip(&teacher).map(|(s, t)| (s - t) * (s - t)).sum::<f32>() / 6.0;
    assert!((value - expected).abs() < 1e-6);
    for ((d, s), t) in d.iter().zip(student).zip(teacher) {
        assert!((d - (s - t) / 3.0).abs() < 1e-6, "{d}");
    }
    // A loss that does not depend on the student has no gradient, and says so.
    let other = |_: &[candle_core::Tensor], t: &[candle_core::Tensor]| t[0].sum_all();
    let message = composed(&[tap(&student)], &[tap(&teacher)], &mut [&mut d], other).unwrap_err().to_string();
    assert!(message.contains("a gradient of student tap 0"), "{message}");
}
