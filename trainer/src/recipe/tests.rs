use std::path::Path;

use super::keys::{self, Form, SECTIONS};
use super::parse::{parse, read};
use super::*;
use crate::gpu::Precision;
use crate::losses::kd;
use crate::options::{Kind, Options};
use crate::rng::{Purpose, Rng};

const GOOD: &str = r#"[data]
format = "digits"
augment = [{ kind = "translate" }]
[teacher]
arch = "cnn"
widths = [32, 64]
epochs = 3
optimizer = { kind = "sgd", lr = 0.5 }
must_reach = 0.9
[student]
arch = "mlp"
[train]
epochs = 10
batch = 16
clip_norm = 5
[distill]
terms = [
  { method = "kd", temperature = 2, weight = 0.5, schedule = { kind = "cosine" } },
  { method = "ce" },
]
"#;

fn good() -> Recipe {
    parse(GOOD, "some/good.toml", &[]).expect("a good recipe")
}

/// The recipe with one line changed, or with lines added at its end.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    if from.is_empty() { format!("{GOOD}{to}") } else { GOOD.replacen(from, to, 1) }
}

#[test]
fn a_recipe_says_only_what_differs_from_a_default() {
    let recipe = good();
    assert_eq!((&*recipe.run.name, recipe.run.seed, recipe.run.device), ("good", 1, Device::Cpu));
    assert_eq!((&*recipe.data.format, recipe.data.subset, recipe.data.validation), ("digits", 1.0, 0.1));
    assert_eq!(recipe.data.augment[0].name, "translate");
    let [Teacher { source: TeacherSource::Arch { arch, train }, must_reach: Some(0.9), weight: 1.0, .. }] =
        &*recipe.teachers
    else {
        panic!("{:?}", recipe.teachers)
    };
    assert_eq!((arch.name, arch.options.counts("widths"), arch.options.count("kernel")), ("cnn", &[32, 64][..], 3));
    assert_eq!((train.epochs, train.batch, train.clip_value, train.clip_norm), (3, 16, None, Some(5.0)));
    assert_eq!((train.optimizer.name, train.optimizer.options.number("lr")), ("sgd", 0.5));
    assert_eq!((recipe.train.epochs, recipe.train.optimizer.name, recipe.train.schedule.name), (10, "adamw", "cosine"));
    assert_eq!((recipe.train.patience, recipe.train.keep), (None, Keep::Selected));
    let [kd, ce] = &*recipe.distill.terms else { panic!("{:?}", recipe.distill.terms) };
    assert_eq!((kd.method.options.number("temperature"), kd.weight, ce.weight), (2.0, 0.5, 1.0));
    assert_eq!((kd.schedule.as_ref().map(|schedule| schedule.name), &ce.schedule), (Some("cosine"), &None));
    assert_eq!((recipe.compare.baseline, recipe.seeds()), (true, vec![1]));
    let alone = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n";
    assert!(!parse(alone, "alone.toml", &[]).expect("training alone").compare.baseline);
}

#[test]
fn refuses_what_it_does_not_know_in_one_line_with_its_place() {
    #[rustfmt::skip]
    let cases = [
        // text replaced, by what, the whole message
        ("[distill]", "[destill]", "r.toml:16: destill: expected a key of a recipe, found `destill`; did you mean `distill`?"),
        ("batch =", "bacth =", "r.toml:14: train.bacth: expected a key of [train], found `bacth`; did you mean `batch`?"),
        ("batch =", "zzz =", "r.toml:14: train.zzz: expected a key of [train], found `zzz`; known are epochs, batch, accumulate, optimizer, schedule, decay_norm_and_bias, label_smoothing, class_weights, clip_value, clip_norm, max_norm, ema, ema_warmup, groups, patience, keep"),
        ("\"mlp\"", "\"mpl\"", "r.toml:11: student.arch: expected an architecture, found `\"mpl\"`; did you mean `mlp`?"),
        ("arch = \"mlp\"", "", "r.toml:10: student.arch: expected an architecture (ARCHS), found nothing; name one with `arch`"),
        ("arch = \"mlp\"", "arch = \"mlp\"\nhiden = [1]", "r.toml:12: student.hiden: expected a key of architecture `mlp`, found `hiden`; did you mean `hidden`?"),
        ("arch = \"mlp\"", "arch = \"mlp\"\nhidden = [0]", "r.toml:12: student.hidden: expected a list of at most 256 whole numbers from 1 to 1048576, found `0`; correct it, or leave it out for [128]"),
        ("arch = \"mlp\"", "arch = \"mlp\"\nhidden = 128", "r.toml:12: student.hidden: expected a list of at most 256 whole numbers from 1 to 1048576, found `128`; correct it, or leave it out for [128]"),
        ("\"sgd\"", "\"sdg\"", "r.toml:8: teacher.optimizer.kind: expected an optimizer, found `\"sdg\"`; did you mean `sgd`?"),
        ("lr = 0.5", "rl = 0.5", "r.toml:8: teacher.optimizer.rl: expected a key of optimizer `sgd`, found `rl`; did you mean `lr`?"),
        ("lr = 0.5", "lr = -1", "r.toml:8: teacher.optimizer.lr: expected a number above 0, found `-1`; correct it, or leave it out for 0.1"),
        ("lr = 0.5", "lr = nan", "r.toml:8: teacher.optimizer.lr: expected a number above 0, found `NaN`; correct it, or leave it out for 0.1"),
        ("kind = \"sgd\", ", "", "r.toml:8: teacher.optimizer.kind: expected an optimizer (adam, adamw, dot, rmsprop, sgd), found nothing; name one with `kind`"),
        ("{ kind = \"sgd\", lr = 0.5 }", "\"sgd\"", "r.toml:8: teacher.optimizer: expected a table of keys, found `\"sgd\"`; write it as { … }"),
        ("\"translate\"", "\"tarnslate\"", "r.toml:3: data.augment.0.kind: expected an augmentation, found `\"tarnslate\"`; did you mean `translate`?"),
        ("\"kd\"", "\"dk\"", "r.toml:18: distill.terms.0.method: expected a method, found `\"dk\"`; did you mean `kd`?"),
        ("temperature = 2", "temperature = 0", "r.toml:18: distill.terms.0.temperature: expected a number above 0, found `0`; correct it, or leave it out for 4.0"),
        ("temperature = 2", "temperature = inf", "r.toml:18: distill.terms.0.temperature: expected a number above 0, found `inf`; correct it, or leave it out for 4.0"),
        ("weight = 0.5", "wieght = 0.5", "r.toml:18: distill.terms.0.wieght: expected a key of method `kd`, found `wieght`; did you mean `weight`?"),
        ("weight = 0.5", "weight = -0.5", "r.toml:18: distill.terms.0.weight: expected a number of 0 or above, found `-0.5`; correct it, or leave it out (the method's)"),
        ("\"cosine\"", "\"cosin\"", "r.toml:18: distill.terms.0.schedule.kind: expected a schedule, found `\"cosin\"`; did you mean `cosine`?"),
        ("batch = 16", "batch = 0", "r.toml:14: train.batch: expected a whole number from 1 to 1048576, found `0`; correct it, or leave it out for 64"),
        ("batch = 16", "batch = 16.0", "r.toml:14: train.batch: expected a whole number from 1 to 1048576, found `16.0`; correct it, or leave it out for 64"),
        ("batch = 16", "batch = 99999999999999999999", "r.toml:14: train.batch: expected a whole number from 1 to 1048576, found `99999999999999999999`; correct it, or leave it out for 64"),
        ("batch = 16", "batch = [16]", "r.toml:14: train.batch: expected a whole number from 1 to 1048576, found a list of 1; correct it, or leave it out for 64"),
        ("epochs = 3", "epochs = -3", "r.toml:7: teacher.epochs: expected a whole number from 1 to 1000000, found `-3`; correct it, or leave it out (that of `[train]`)"),
        ("must_reach = 0.9", "must_reach = 90", "r.toml:9: teacher.must_reach: expected a number from 0 to 1, found `90`; correct it, or leave it out (any teacher will do that the recipe trains; another has to know more than who guesses)"),
        ("clip_norm = 5", "keep = \"best\"", "r.toml:15: train.keep: expected one of selected, last, found `\"best\"`; known are selected, last"),
        ("clip_norm = 5", "ema = 1", "r.toml:15: train.ema: expected a number from 0 to below 1, found `1`; correct it, or leave it out (no average)"),
        ("clip_norm = 5", "groups = [{ lr_factor = 2 }]", "r.toml:15: train.groups.0.match: expected names of parameters: `*` stands for any letters, `?` for any one, found nothing; set `match`"),
        ("clip_norm = 5", "groups = [{ match = \"a\", lr = 2 }]", "r.toml:15: train.groups.0.lr: expected a key of a group, found `lr`; known are match, lr_factor, weight_decay, frozen"),
        ("clip_norm = 5", "groups = { match = \"a\" }", "r.toml:15: train.groups: expected a list of groups { match = … }, found a table; correct the recipe"),
        ("clip_norm = 5", "decay_norm_and_bias = 1", "r.toml:15: train.decay_norm_and_bias: expected true or false, found `1`; correct it, or leave it out for true"),
        ("\"digits\"", "\"digit\"", "r.toml:2: data.format: expected a format (cifar, csv, digits, idx, images, npz, ucr, wav), found `digit`; did you mean `digits`?"),
        ("format = \"digits\"", "", "r.toml:1: data.format: expected a format of data, one of those below, found nothing; set `format`"),
        ("format = \"digits\"", "format = \"digits\"\npath = \"x\"", "r.toml:3: data.path: expected no path for the format `digits`, found `x`; leave it out"),
        ("format = \"digits\"", "format = \"wav\"\npath = \"x\"\nread = { kind = \"image\" }", "r.toml:4: data.read: expected one of log_mel, mfcc for the format `wav`, found `image`; correct it"),
        ("format = \"digits\"", "format = \"digits\"\nread = { kind = \"array\" }", "r.toml:3: data.read: expected none for the format `digits`, found `array`; correct it"),
        ("format = \"digits\"", "format = \"ucr\"", "r.toml:1: data.path: expected a path: UCR and UEA series, tab, comma or .ts (.gz); PATH is DIR/NAME of NAME_TRAIN and NAME_TEST, or their folder, found none; set it"),
        ("format = \"digits\"", "format = \"digits\"\nsubset = 0", "r.toml:3: data.subset: expected a number above 0 and up to 1, found `0`; correct it, or leave it out for 1.0"),
        ("format = \"digits\"", "format = \"digits\"\nvalidation = 1", "r.toml:3: data.validation: expected a number from 0 to below 1, found `1`; correct it, or leave it out for 0.1"),
        ("format = \"digits\"", "format = \"digits\"\nexclude_classes = [3]", "r.toml:3: data.exclude_classes.0: expected a text: the name of a class, found `3`; put it in quotes"),
        ("format = \"digits\"", "format = 1979-05-27", "r.toml:2: data.format: expected a text, found `1979-05-27`; correct it"),
        ("arch = \"cnn\"", "arch = \"cnn\"\nrun = \"x\"", "r.toml:4: teacher: expected one of `run`, `onnx`, `arch`, found run and arch; say where the teacher comes from"),
        ("arch = \"cnn\"", "run = \"x\"", "r.toml:6: teacher.widths: expected a key of a teacher from `run`, found `widths`; known are run, must_reach, weight, cache, cache_views, cache_precision"),
        ("arch = \"cnn\"", "", "r.toml:4: teacher: expected one of `run`, `onnx`, `arch`, found none; say where the teacher comes from"),
        ("arch = \"cnn\"", "arch = \"cnn\"\ncontract = \"c\"", "r.toml:6: teacher.contract: expected a key of architecture `cnn`, found `contract`; known are arch, must_reach, weight, cache, cache_views, cache_precision, count, epochs, batch, optimizer, schedule, widths, kernel, convs, head, dropout"),
        ("[train]", "[run]\nprecision = \"tf32\"\n[train]", "r.toml:13: run.precision: expected f32 on a processor, found `tf32`; set run.device = \"cuda:0\", or precision = \"f32\""),
        ("[train]", "[run]\ndevice = \"gpu\"\n[train]", "r.toml:13: run.device: expected `cpu` or `cuda:N`, found `gpu`; name one of them"),
        ("[train]", "[run]\nprecision = \"f16\"\n[train]", "r.toml:13: run.precision: expected one of f32, tf32, found `\"f16\"`; known are f32, tf32"),
        ("[train]", "[run]\nthreads = 0\n[train]", "r.toml:13: run.threads: expected a whole number from 1 to 1024, found `0`; correct it, or leave it out (all cores of this machine)"),
        ("[train]", "[run]\nname = \"\"\n[train]", "r.toml:13: run.name: expected a name, found an empty text; leave it out for the file's name"),
        ("[train]", "[compare]\nseeds = [1, 2, 1]\n[train]", "r.toml:13: compare.seeds: expected seeds that differ, found `1` twice; remove one"),
        ("[train]", "budget = 1\n[train]", "r.toml:12: student.budget: expected a key of architecture `mlp`, found `budget`; known are arch, hidden, input_dropout, dropout"),
        ("[data]", "budget = 1\n[data]", "r.toml:1: budget: expected a table of keys, found `1`; write it as [budget]"),
        ("clip_norm = 5", "patience = 3\n[data.x]", "r.toml:16: data.x: expected a key of [data], found `x`; known are format, path, read, normalize, subset, exclude_classes, validation, labelled, augment"),
        ("", "[data]\n", "r.toml:21: expected TOML, found duplicate key; correct the recipe"),
        ("batch = 16", "batch = ", "r.toml:14: expected TOML, found string values must be quoted, expected literal string; correct the recipe"),
    ];
    let mut failed = Vec::new();
    let archs = crate::zoo::table::ARCHS.iter().map(|arch| arch.name).collect::<Vec<_>>().join(", ");
    for (from, to, expected) in cases {
        let expected = expected.replace("ARCHS", &archs);
        match parse(&changed(from, to), "r.toml", &[]) {
            Err(error) if error.to_string() == expected => {}
            Err(error) => failed.push(format!("{to}:\n  expected {expected}\n  found    {error}")),
            Ok(_) => failed.push(format!("{to}: accepted")),
        }
    }
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn refuses_a_recipe_that_contradicts_itself() {
    let alone = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n";
    #[rustfmt::skip]
    let cases = [
        ("[distill]\nterms = [{ method = \"kd\" }]", "r.toml:6: distill.terms.0: expected a [teacher] for the method `kd`, found none; add a [teacher] or remove the term"),
        ("[teacher]\narch = \"mlp\"", "r.toml:5: teacher: expected a term in distill.terms that learns from the teacher, found none; add terms = [{ method = \"kd\" }] to [distill] or remove the teacher"),
        ("[teacher]\nrun = \"x\"\n[distill]\nterms = [{ method = \"ce\" }]", "r.toml:5: teacher: expected a term in distill.terms that learns from the teacher, found none; add terms = [{ method = \"kd\" }] to [distill] or remove the teacher"),
        ("[compare]\nbaseline = true", "r.toml:6: compare.baseline: expected distill.terms to compare with, found none; leave it out: without terms the student is its own baseline"),
        ("[train]\npatience = 3\n[distill]\n[data.augment]", "r.toml:8: data.augment: expected a list of augmentations { kind = … }, found a table; correct the recipe"),
        ("[distill]\ntask_weight = 0", "r.toml:6: distill.task_weight: expected a weight above 0 for the task or for a term of the main stage, found none; set one above 0"),
    ];
    let mut failed = Vec::new();
    for (added, expected) in cases {
        let found =
            parse(&format!("{alone}{added}"), "r.toml", &[]).map_or_else(|e| e.to_string(), |_| "accepted".into());
        if found != expected {
            failed.push(format!("{added}:\n  expected {expected}\n  found    {found}"));
        }
    }
    let patience = parse(alone, "r.toml", &["train.patience=3".into(), "data.validation=0".into()]);
    let expected = "override `train.patience=3`: train.patience: expected data.validation above 0, which patience looks \
                    at, found `0.0`; set data.validation = 0.1 or leave patience out";
    assert_eq!(patience.map_or_else(|e| e.to_string(), |_| "accepted".into()), expected);
    let terms = format!("{alone}[distill]\nterms = [{{ method = \"bce\" }}, {{ method = \"cs_kd\" }}]");
    assert!(parse(&terms, "r.toml", &[]).is_ok());
    let expected = "r.toml:6: distill.terms.1: expected data.labelled = 1, since `cs_kd` needs every label, found 0.5; set \
                    it, or choose a method that does without";
    let few = parse(&terms, "r.toml", &["data.labelled=0.5".into()]);
    assert_eq!(few.map_or_else(|e| e.to_string(), |_| "accepted".into()), expected);
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn replicas_that_teach_each_other_need_a_term_and_no_teacher() {
    let alone = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n";
    let scheme =
        "[distill]\nscheme = \"codistill\"\nreplicas = 3\nburn_in_steps = 4\nexchange_steps = 2\nshards = \"same\"\n";
    let terms = "terms = [{ method = \"kd\" }]\n";
    let recipe = parse(&format!("{alone}{scheme}{terms}"), "r.toml", &[]).expect("replicas");
    let expected = Codistill { replicas: 3, burn_in_steps: Some(4), exchange_steps: 2, shards: Shards::Same };
    assert_eq!(recipe.distill.scheme, Scheme::Codistill(expected));
    assert!(recipe.compare.baseline);
    assert_eq!(parse(&recipe.to_toml(), "r.toml", &[]), Ok(recipe));
    let peers = "peers = [{ arch = \"cnn\" }, { arch = \"mlp\", hidden = [7] }]\n";
    let recipe = parse(&format!("{alone}{scheme}{peers}{terms}"), "r.toml", &[]).expect("peers");
    let names: Vec<&str> = (0..3).map(|i| recipe.replica(i).name).collect();
    assert_eq!((names, recipe.replica(2).options.counts("hidden")), (vec!["mlp", "cnn", "mlp"], &[7][..]));
    assert_eq!(parse(&recipe.to_toml(), "r.toml", &[]), Ok(recipe));
    #[rustfmt::skip]
    let cases = [
        (format!("{scheme}peers = [{{ arch = \"cnn\" }}]\n{terms}"), "distill.replicas: expected 2, the student and distill.peers, found 3; leave it out, or correct the peers"),
        (format!("[distill]\nscheme = \"codistill\"\npeers = [{}]\n{terms}", "{ arch = \"mlp\" }, ".repeat(64)), "distill.peers: expected at most 63 peers, found 64; name fewer"),
        ("[distill]\npeers = []\n".into(), "distill.peers: expected scheme = \"codistill\" with this key, found scheme = \"offline\""),
        ("[distill]\nscheme = \"dml\"\nterms = []\n".into(), "distill.terms: expected a term that learns from the others, found none"),
        (scheme.to_string(), "distill.terms: expected a term that learns from the others, found none"),
        (format!("{scheme}{terms}[teacher]\narch = \"mlp\""), "teacher: expected none: replicas teach each other, found a teacher"),
        (format!("{scheme}{terms}[train]\npatience = 3"), "train.patience: expected none with scheme = \"codistill\""),
        ("[distill]\nreplicas = 3\n".into(), "distill.replicas: expected scheme = \"codistill\" with this key, found scheme = \"offline\""),
    ];
    for (added, expected) in cases {
        let message = parse(&format!("{alone}{added}"), "r.toml", &[]).expect_err(expected).to_string();
        assert!(message.contains(expected), "expected {expected}\nfound {message}");
    }
}

#[test]
fn mutual_learning_is_codistillation_with_other_defaults() {
    let alone = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n[compare]\nbaseline = true\n[distill]\n";
    let dml = parse(&format!("{alone}scheme = \"dml\"\npeers = [{{ arch = \"cnn\" }}]\n"), "r.toml", &[]).expect("dml");
    let written = "scheme = \"codistill\"\npeers = [{ arch = \"cnn\" }]\nburn_in_steps = 0\nexchange_steps = 1\nshards = \"same\"\n\
                   terms = [{ method = \"codistill\", psi = \"kl\" }]\n";
    assert_eq!(parse(&format!("{alone}{written}"), "r.toml", &[]).as_ref(), Ok(&dml));
    assert!(dml.compare.baseline && matches!(dml.distill.scheme, Scheme::Codistill(Codistill { replicas: 2, .. })));
    let other = parse(&format!("{alone}scheme = \"dml\"\nshards = \"disjoint\"\nexchange_steps = 7\n"), "r.toml", &[]);
    let Scheme::Codistill(scheme) = other.expect("keys that are set").distill.scheme else { panic!("replicas") };
    assert_eq!((scheme.shards, scheme.exchange_steps, scheme.burn_in_steps), (Shards::Disjoint, 7, Some(0)));
}

#[test]
fn teachers_come_from_runs_files_and_recipes_one_or_many() {
    let several = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n[distill]\nterms = [{ method = \"kd\" }]\n\
                   [[teacher]]\nrun = \"runs/a\"\nweight = 2\n[[teacher]]\nonnx = \"a.onnx\"\ncontract = \"c.json\"\n\
                   [[teacher]]\narch = \"cnn\"\n";
    let recipe = parse(several, "r.toml", &[]).expect("three teachers");
    let [a, b, c] = &*recipe.teachers else { panic!("{:?}", recipe.teachers) };
    assert_eq!((&a.source, a.weight), (&TeacherSource::Run("runs/a".into()), 2.0));
    assert_eq!(b.source, TeacherSource::Onnx { path: "a.onnx".into(), contract: Some("c.json".into()) });
    assert!(matches!(&c.source, TeacherSource::Arch { train, .. } if **train == recipe.train));
    assert_eq!(parse(&recipe.to_toml(), "r.toml", &[]), Ok(recipe));
    let wrong = parse(&several.replace("weight = 2", "weight = 0"), "r.toml", &[]).expect_err("no share");
    assert_eq!(wrong.at, "r.toml:9: teacher.0.weight");
}

#[test]
fn a_count_stands_for_as_many_teachers_that_are_written_alike() {
    let text = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n[distill]\nterms = [{ method = \"kd\" }]\n\
                [teacher]\narch = \"cnn\"\ncount = 5\nweight = 2\n";
    let five = parse(text, "r.toml", &[]).expect("five teachers");
    let one = "[[teacher]]\narch = \"cnn\"\nweight = 2\n";
    let written = format!("{}{}", &text[..text.find("[teacher]").expect("teacher")], one.repeat(5));
    assert_eq!(parse(&written, "r.toml", &[]).as_ref(), Ok(&five));
    assert_eq!(parse(&five.to_toml(), "r.toml", &[]), Ok(five));
    let of_a_run = parse(&text.replace("arch = \"cnn\"", "run = \"a\""), "r.toml", &[]).expect_err("of arch alone");
    assert!(of_a_run.to_string().contains("teacher.count: expected a key of a teacher from `run`"), "{of_a_run}");
}

#[test]
fn overrides_replace_keys_by_their_path_and_are_named_in_errors() {
    let set = |text: &str| parse(GOOD, "good.toml", &[text.to_string()]).map_err(|e| e.to_string());
    let train = set("train.epochs=7").expect("train.epochs").train;
    assert_eq!((train.epochs, train.batch), (7, 16));
    assert_eq!(set("run.name=other one").expect("a text without quotes").run.name, "other one");
    assert_eq!(set("distill.terms.0.weight=2").expect("a term").distill.terms[0].weight, 2.0);
    assert_eq!(set("teacher.widths=[4]").expect("a list").teachers.len(), 1);
    assert_eq!(set("train.optimizer={ kind = \"sgd\" }").expect("a table").train.optimizer.name, "sgd");
    assert_eq!(set("run.device=cuda:1").expect("a device").run.device, Device::Cuda(1));
    #[rustfmt::skip]
    let cases = [
        ("train.epochs=0", "override `train.epochs=0`: train.epochs: expected a whole number from 1 to 1000000, found `0`; correct it, or leave it out for 20"),
        ("train.epochs=x", "override `train.epochs=x`: train.epochs: expected a whole number from 1 to 1000000, found `\"x\"`; correct it, or leave it out for 20"),
        ("train.epoch=1", "override `train.epoch=1`: train.epoch: expected a key of [train], found `epoch`; did you mean `epochs`?"),
        ("tarin.epochs=1", "override `tarin.epochs=1`: tarin: expected a key of a recipe, found `tarin`; did you mean `train`?"),
        ("distill.terms.2.weight=1", "override `distill.terms.2.weight=1`: expected a place from 0 to 1 in the list `distill.terms`, found `2`; correct it, or give the whole list as distill.terms=[…]"),
        ("train.epochs.x=1", "override `train.epochs.x=1`: expected a table or a list at `train.epochs`, found `10`; shorten the key"),
        ("train.epochs", "override `train.epochs`: expected KEY=VALUE, found no key or no `=`; write it as train.epochs=3"),
        ("=1", "override `=1`: expected KEY=VALUE, found no key or no `=`; write it as train.epochs=3"),
        ("student=mlp", "override `student=mlp`: student: expected a table of keys, found `\"mlp\"`; write it as [student]"),
    ];
    for (assignment, expected) in cases {
        assert_eq!(set(assignment).map(|_| ()), Err(expected.to_string()));
    }
}

#[test]
fn the_complete_recipe_reads_back_the_same() {
    let mut recipe = good();
    recipe.run.name = "a \"name\"\\ with\n\u{7f}é".into();
    (recipe.run.device, recipe.run.precision) = (Device::Cuda(3), Precision::Tf32);
    recipe.data.exclude_classes = vec!["1".into(), "\t".into()];
    recipe.data.normalize = Normalize::None;
    recipe.data.subset = 0.1 + 0.2;
    recipe.train.clip_value = Some(0.5);
    recipe.train.max_norm = Some(1e-300);
    recipe.train.patience = Some(7);
    recipe.train.ema = Some(0.999);
    let group = Group { pattern: "a\"*".into(), lr_factor: 0.1, weight_decay: None, frozen: true };
    recipe.train.groups = vec![Group { weight_decay: Some(1e-9), ..group.clone() }, group];
    recipe.distill.diagnose = true;
    recipe.train.keep = Keep::Last;
    recipe.compare = Compare { baseline: false, seeds: vec![3, i64::MAX as u64] };
    recipe.budget = Some("budgets/pi4.toml".into());
    let TeacherSource::Arch { train, .. } = &mut recipe.teachers[0].source else { panic!("a teacher to train") };
    **train = Train { epochs: 3, optimizer: train.optimizer.clone(), groups: Vec::new(), ..recipe.train.clone() };
    let text = recipe.to_toml();
    assert_eq!(parse(&text, "other.toml", &[]), Ok(recipe.clone()), "{text}");
    let spoken = GOOD.replacen(
        "\"digits\"",
        "\"csv\"\npath = \"d\"\nread = { kind = \"columns\", features = [\"a\", \"b,\"] }",
        1,
    );
    let recipe_of_columns = parse(&spoken, "r.toml", &[]).expect("a recipe");
    let read = recipe_of_columns.data.read.as_ref().expect("a reading");
    assert_eq!((read.name, read.options.texts("features")), ("columns", &["a".to_string(), "b,".into()][..]));
    assert_eq!(parse(&recipe_of_columns.to_toml(), "r.toml", &[]), Ok(recipe_of_columns));
    for (section, key) in all_keys() {
        let of_others = ["teacher.run", "teacher.onnx", "teacher.contract", "teacher.count", "data.read"];
        let of_replicas =
            ["replicas", "peers", "burn_in_steps", "exchange_steps", "shards"].map(|key| format!("distill.{key}"));
        let name = format!("{section}.{key}");
        let given = !of_others.contains(&&*name) && !of_replicas.contains(&name);
        let clip = section == "train" && key == "clip_norm" && recipe.train.clip_norm.is_none();
        let there = text.lines().any(|line| line.starts_with(&format!("{key} = ")));
        assert!(there || !given || clip, "{section}.{key} is missing in\n{text}");
    }
}

#[test]
fn the_fingerprint_changes_with_all_but_name_and_threads() {
    let of = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        parse(GOOD, "good.toml", &overrides).expect("a recipe").fingerprint()
    };
    assert_eq!(of(&[]), of(&["run.name=x", "run.threads=7", "run.loaders=0"]));
    for other in ["run.seed=2", "train.epochs=11", "distill.terms.0.temperature=3", "data.subset=0.5"] {
        assert_ne!(of(&[]), of(&[other]), "{other}");
    }
}

#[test]
fn the_example_recipes_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut schemes = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(root.join("recipes")).expect("recipes/") {
        let path = file.expect("an entry").path();
        let recipe = read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(Some(&*recipe.run.name), path.file_stem().and_then(|stem| stem.to_str()));
        assert!(recipe.budget.as_ref().is_none_or(|budget| root.join(budget).is_file()), "{}", path.display());
        // It begins by saying what it shows and how it is run.
        let text = std::fs::read_to_string(&path).expect("a text");
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        let how = format!("kd-train run recipes/{}.toml --output runs/", recipe.run.name);
        assert!(head.contains(&how), "{}: {head}", path.display());
        let own = recipe.distill.assistants.iter().all(|choice| *choice == recipe.student);
        schemes.insert(match (recipe.distill.scheme, recipe.teachers.len()) {
            (Scheme::Codistill(_), _) => ["codistill", "dml"][usize::from(!recipe.distill.peers.is_empty())],
            _ if !recipe.distill.assistants.is_empty() => ["assistants", "born_again"][usize::from(own)],
            (_, 0) if recipe.distills() => "self",
            (_, 0) => "none",
            (_, 1) => "offline",
            _ => "ensemble",
        });
    }
    let missing: Vec<&str> =
        crate::schemes::table::SCHEMES.iter().map(|row| row.name).filter(|name| !schemes.contains(name)).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
}

#[test]
fn no_change_of_bytes_makes_the_parser_panic() {
    let mut rng = Rng::new(1, Purpose::Shuffle, 0, 0);
    let mut accepted = 0;
    for _ in 0..2000 {
        let mut bytes = GOOD.as_bytes().to_vec();
        for _ in 0..=rng.below(4) {
            let i = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[i] ^= 1 << rng.below(8),
                1 => bytes[i] = b"[]{}=\".,0-\n_#'\\e"[rng.below(16) as usize],
                2 => drop(bytes.remove(i)),
                _ => bytes.truncate(i.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text, "r.toml", &[]) {
            Ok(recipe) => {
                accepted += 1;
                assert_eq!(parse(&recipe.to_toml(), "r.toml", &[]), Ok(recipe), "{text}");
            }
            Err(error) => assert!(!error.to_string().contains('\n') && error.to_string().starts_with("r.toml")),
        }
    }
    assert!((1..1900).contains(&accepted), "{accepted} accepted");
    for hostile in ["[".repeat(100_000), format!("a={}", "[".repeat(100_000)), "a.".repeat(100_000), "{a=".repeat(9999)]
    {
        assert!(parse(&hostile, "r.toml", &[]).is_err());
    }
}

/// Every key as `(section, key)`.
fn all_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.name, key.name)))
}

#[test]
fn no_option_of_an_entry_hides_a_key_beside_it() {
    for section in SECTIONS {
        let tables = section.table.into_iter().map(|table| (table, section.keys));
        let terms =
            section.keys.iter().any(|key| matches!(key.form, Form::Terms)).then_some((&keys::METHOD, keys::TERM));
        for (table, beside) in tables.chain(terms) {
            for row in (table.rows)() {
                let mut names = beside.iter().map(|key| key.name).chain([table.key]);
                let hidden = names.find(|name| row.options.iter().any(|spec| spec.name == *name));
                assert_eq!(hidden, None, "{} `{}`", table.what, row.name);
            }
        }
    }
}

#[test]
fn every_key_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("docs");
    let recipes = std::fs::read_to_string(docs.join("recipes.md")).expect("docs/recipes.md");
    let mut missing = Vec::new();
    for (keys, name) in
        SECTIONS.iter().map(|s| (s.keys, s.name)).chain([(keys::TERM, "a term"), (keys::GROUP, "a group")])
    {
        for key in keys {
            let row = format!("| `{}` | {} | {} | {} |", key.name, key.about, key.words(), key.default_words());
            if !recipes.contains(&row) {
                missing.push(format!("docs/recipes.md, {name}:\n{row}"));
            }
        }
    }
    let tables = [&keys::ARCH, &keys::OPTIMIZER, &keys::SCHEDULE, &keys::AUGMENTATION, &keys::READING];
    for table in tables {
        for row in (table.rows)() {
            let names = std::iter::once(row.name).chain(row.options.iter().map(|spec| spec.name));
            let gone = names.filter(|name| !recipes.contains(&format!("`{name}`")));
            missing.extend(gone.map(|name| format!("{} `{}`: `{name}`", table.what, row.name)));
        }
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

#[test]
fn a_term_without_a_weight_has_the_published_one() {
    let parsed = |term: &str| {
        let text = format!(
            "[data]\nformat = \"digits\"\n[teacher]\narch = \"cnn\"\n[student]\narch = \"cnn\"\n[distill]\nterms = [\n\
             {{ method = \"kd\" }},\n{{ method = {term} }}]\n"
        );
        let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
        let complete = parse(&recipe.to_toml(), "r.toml", &[]).expect("a complete recipe").distill.terms[1].weight;
        assert_eq!(complete, recipe.distill.terms[1].weight, "{}", recipe.to_toml());
        complete
    };
    let cases = [
        ("\"rkd_d\"", 25.0),
        ("\"rkd_a\"", 50.0),
        ("\"rkd_d\", reduction = \"sum\"", 1.0),
        ("\"pkt\"", 30000.0),
        ("\"sp\"", 3000.0),
        ("\"at\"", 1000.0),
        ("\"at\", form = \"paper\"", 1.0),
        ("\"nst\"", 50.0),
        ("\"fsp\"", 50.0),
        ("\"fitnets\"", 100.0),
        ("\"fitnets\", reduction = \"half_batch\"", 1.0),
        ("\"ft\"", 200.0),
        ("\"cc\"", 1.0),
        ("\"cc\", form = \"rep\"", 0.02),
        ("\"crd\"", 0.8),
        ("\"review\"", 5.0),
        ("\"vid\"", 1.0),
        ("\"ab\"", 1.0),
        ("\"ofd\"", 1.0),
        ("\"kd\"", 1.0),
        ("\"pkt\", weight = 2", 2.0),
    ];
    for (term, weight) in cases {
        assert_eq!(parsed(term), weight, "{term}");
    }
    // A form that has its own factor is one that the method knows.
    for method in crate::losses::table::METHODS {
        for (option, value, _) in method.weight.forms {
            let known = method.options.iter().find(|spec| spec.name == *option).map(|spec| spec.kind);
            let is_known = matches!(known, Some(Kind::Choice { known, .. }) if known.contains(value));
            assert!(is_known, "{}: {option} = {value}", method.name);
        }
    }
}

/// Terms and weights of a recipe with these lines in `[distill]`, 20 epochs in `[train]`.
fn staged(distill: &str) -> kd_runtime::Result<Distill> {
    let teacher = if distill.contains("codistill") { "" } else { "[teacher]\narch = \"cnn\"\n" };
    let text = format!("[data]\nformat = \"digits\"\n{teacher}[student]\narch = \"cnn\"\n[distill]\n{distill}");
    let recipe = parse(&text, "r.toml", &[])?;
    assert_eq!(parse(&recipe.to_toml(), "r.toml", &[]).as_ref(), Ok(&recipe), "the complete recipe");
    Ok(recipe.distill)
}

#[test]
fn a_method_that_comes_first_has_its_second_stage() {
    let told = |distill: &Distill| -> Vec<(&str, Stage)> {
        distill.terms.iter().map(|term| (term.method.name, term.stage)).collect()
    };
    let of = |terms: &str| staged(&format!("terms = [{terms}]\n")).unwrap();
    let (ab, kd) = (("ab", Stage::Init), ("kd", Stage::Main));
    for terms in ["{ method = \"ab\" }", "{ method = \"ab\", stage2 = \"ce_kd\" }"] {
        let found = of(terms);
        assert_eq!((told(&found), found.init_epochs, found.task_weight), (vec![ab, kd], 3, 1.0));
        assert_eq!(found.terms[1].method.options, Options::defaults(kd::OPTIONS));
        assert!(!found.terms[0].method.options.has("stage2"));
    }
    let found = of("{ method = \"ab\", stage2 = \"kd_only\" }");
    assert_eq!((told(&found), found.init_epochs, found.task_weight), (vec![ab, kd], 3, 0.0));
    let options = &found.terms[1].method.options;
    assert_eq!((options.number("temperature"), options.flag("tau2")), (3.0, false));
    let found = of("{ method = \"ab\", stage2 = \"ce\" }");
    assert_eq!((told(&found), found.init_epochs, found.task_weight), (vec![ab], 3, 1.0));
    let found = of("{ method = \"ab\", stage2 = \"joint\" }");
    assert_eq!((told(&found), found.init_epochs), (vec![("ab", Stage::Main)], 0));
    // Beside other terms these are the second stage; a stage says it all.
    let found = of("{ method = \"ab\" }, { method = \"dkd\" }");
    assert_eq!((told(&found), found.init_epochs), (vec![ab, ("dkd", Stage::Main)], 3));
    let found = staged("init_epochs = 2\nterms = [{ method = \"ab\", stage = \"both\" }]\n").unwrap();
    assert_eq!((told(&found), found.init_epochs), (vec![("ab", Stage::Both)], 2));
    let found = staged("init_epochs = 7\nterms = [{ method = \"ab\" }]\n").unwrap();
    assert_eq!((told(&found), found.init_epochs), (vec![ab, kd], 7));
    let found = staged("scheme = \"codistill\"\nterms = [{ method = \"ab\" }, { method = \"codistill\" }]\n").unwrap();
    assert_eq!((told(&found)[0], found.init_epochs), (("ab", Stage::Main), 0));
    #[rustfmt::skip]
    let cases = [
        ("terms = [{ method = \"ab\", stage = \"init\", stage2 = \"ce\" }]",
         "distill.terms.0.stage2: expected no `stage` beside it, found `ce`; leave one of both out"),
        ("task_weight = 0.5\nterms = [{ method = \"ab\", stage2 = \"kd_only\" }]",
         "distill.terms.0.stage2: expected `task_weight = 0.0` with it, found `kd_only`; set that, leave it out, or choose `ce_kd`"),
        ("init_epochs = 0\nterms = [{ method = \"ab\" }]",
         "distill.terms.0.stage: expected distill.init_epochs above 0, the epochs of the stage `init`, found `0`; set it, or give the term the stage `main`"),
        ("scheme = \"codistill\"\nterms = [{ method = \"ab\", stage2 = \"ce\" }, { method = \"codistill\" }]",
         "distill.terms.0.stage2: expected `joint` with scheme = \"codistill\", found `ce`; leave it out"),
        ("terms = [{ method = \"byot\", form = \"seed_literal\" }]",
         "distill.task_weight: expected 0.0, since form = \"seed_literal\" of `byot` holds the deepest cross-entropy, found 1; set \
          task_weight = 0.0, or choose the form `paper`"),
    ];
    for (distill, expected) in cases {
        let text =
            if distill.contains("byot") { distill.replace("terms", "assistants = []\nterms") } else { distill.into() };
        let line = staged(&text).unwrap_err().to_string();
        assert!(line.ends_with(expected), "{line}");
    }
}

#[test]
fn what_parts_of_a_batch_cannot_say_is_refused_in_several_processes() {
    let check = |data: &str, term: &str| {
        let text = format!(
            "[data]\nformat = \"digits\"\n{data}[student]\narch = \"cnn\"\n[distill]\ntask_weight = 0.7\nterms = [{{ method = {term} }}]\n"
        );
        check_parts(&parse(&text, "r.toml", &[]).expect("a recipe"), 2).map_err(|refusal| refusal.to_string())
    };
    let part = "labelled = 0.5\n";
    for (data, term) in [("", "\"byot\""), ("", "\"byot\", form = \"paper\""), ("", "\"tf_kd\"")] {
        assert_eq!(check(data, term), Ok(()), "{term}");
    }
    for (data, term) in [
        (part, "\"byot\""),
        ("", "\"byot\", form = \"journal\""),
        ("", "\"byot\", form = \"masked\""),
        ("", "\"cs_kd\""),
    ] {
        let line = check(data, term).expect_err(term);
        assert!(
            line.starts_with("distill.terms.0: expected a method that sees each sample by itself, since 2"),
            "{line}"
        );
    }
}
