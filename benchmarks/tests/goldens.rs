//! The comparisons as tests; each says aloud what it skips when its material is not there.

use kd_benchmarks::{conformance, golden_quant, golden_train};

#[test]
fn engine_equals_onnx_runtime_on_quantized_models() {
    let Some(folder) = kd_benchmarks::material("KD_GOLDEN", "golden/quant") else {
        println!("skipped: golden/quant is not there");
        return;
    };
    let cases = golden_quant::cases(&folder);
    assert!(cases.len() > 100, "expected the whole folder, found {} cases", cases.len());
    let wrong: Vec<String> = (cases.iter())
        .filter_map(|case| match golden_quant::run(case) {
            golden_quant::Outcome::Differs(how) => Some(format!("{}: {how}", case.display())),
            // 16-bit elements are not among the engine's.
            golden_quant::Outcome::Refused(why) if !why.contains("16") => Some(format!("{}: {why}", case.display())),
            _ => None,
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn no_node_test_of_onnx_is_computed_wrongly_or_refused_without_need() {
    let Some(folder) = conformance::folder() else {
        println!("skipped: the ONNX node tests are not there");
        return;
    };
    let cases = conformance::cases(&folder);
    let outcomes: Vec<_> = cases.iter().map(|case| (case, conformance::run(case))).collect();
    let wrong: Vec<String> = (outcomes.iter())
        .filter_map(|(case, outcome)| match outcome {
            conformance::Outcome::Wrong(how) => Some(format!("{}: {how}", case.name)),
            conformance::Outcome::Refused(why) if conformance::reason(why).is_none() => {
                Some(format!("{}: refused without need: {why}", case.name))
            }
            _ => None,
        })
        .collect();
    let passed = outcomes.iter().filter(|(_, outcome)| *outcome == conformance::Outcome::Passed).count();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(passed > 500, "expected more than 500 passed, found {passed} of {}", cases.len());
}

#[test]
fn the_trainer_equals_torch() {
    let Some(folder) = kd_benchmarks::shared("golden").filter(|golden| golden.join("train").exists()) else {
        println!("skipped: golden/train is not there");
        return;
    };
    let lines = golden_train::run(&folder);
    let different: Vec<String> = (lines.iter())
        .filter_map(|(name, outcome)| match outcome {
            golden_train::Outcome::Differs(how) => Some(format!("{name}: {how}")),
            _ => None,
        })
        .collect();
    let equal = lines.iter().filter(|(_, outcome)| matches!(outcome, golden_train::Outcome::Equal(_))).count();
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), lines.len(), different.join("\n"));
    assert!(equal >= 416, "expected at least 416 equal, found {equal} of {}", lines.len());
}
