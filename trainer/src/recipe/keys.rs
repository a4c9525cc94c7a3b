//! Every key of a recipe: one table that the parser, the messages and the test of `docs/recipes.md` read.

use kd_runtime::data::FORMATS;

use crate::data::augment::table::AUGMENTATIONS;
use crate::data::reading::READINGS;
use crate::losses::table::METHODS;
use crate::optim::schedule::SCHEDULES;
use crate::optim::table::OPTIMIZERS;
use crate::options::{Kind, Range, Spec};
use crate::zoo::table::ARCHS;

/// A section of a recipe.
pub struct Section {
    /// Its name, without brackets.
    pub name: &'static str,
    /// What it is about, on one line.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// The table whose entry it names, and whose options stand beside its own keys.
    pub table: Option<&'static Table>,
}

/// One key.
pub struct Key {
    /// Its name in the section.
    pub name: &'static str,
    /// What it does, with its unit, on one line.
    pub about: &'static str,
    /// What it may be.
    pub form: Form,
    /// What holds when it is left out.
    pub left_out: LeftOut,
}

/// What a key may be.
#[derive(Clone, Copy)]
pub enum Form {
    /// A value.
    Setting(Kind),
    /// A list of texts.
    Texts,
    /// An entry of a table with its options.
    Entry(&'static Table),
    /// A list of such entries.
    Entries(&'static Table),
    /// The terms of a loss: entries of the methods, each with the keys of [`TERM`].
    Terms,
    /// Groups of parameters, each with the keys of [`GROUP`].
    Groups,
}

/// What holds when a key is left out.
#[derive(Clone, Copy)]
pub enum LeftOut {
    /// The default of the kind; an empty list.
    Default,
    /// This entry with its defaults.
    Entry(&'static str),
    /// Something else, in words.
    Words(&'static str),
    /// It must be there.
    Required,
}

/// A table of entries that a recipe chooses from.
pub struct Table {
    /// What its entries are.
    pub what: &'static str,
    /// The key that names the entry.
    pub key: &'static str,
    /// Its entries with their options.
    pub rows: fn() -> Vec<Row>,
}

/// An entry of a table.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its options, without the key that names it.
    pub options: &'static [Spec],
}

macro_rules! table {
    ($name:ident, $what:literal, $key:literal, $rows:expr) => {
        #[doc = concat!("Every ", $what, ".")]
        pub static $name: Table = Table {
            what: $what,
            key: $key,
            rows: || $rows.iter().map(|row| Row { name: row.name, options: row.options }).collect(),
        };
    };
}
table!(ARCH, "architecture", "arch", ARCHS);
table!(METHOD, "method", "method", METHODS);
table!(OPTIMIZER, "optimizer", "kind", OPTIMIZERS);
table!(SCHEDULE, "schedule", "kind", SCHEDULES);
table!(AUGMENTATION, "augmentation", "kind", AUGMENTATIONS);
table!(READING, "reading", "kind", READINGS);

/// Names of the data formats.
pub fn formats() -> Vec<&'static str> {
    FORMATS.iter().map(|format| format.name).collect()
}

const fn key(name: &'static str, about: &'static str, kind: Kind) -> Key {
    Key { name, about, form: Form::Setting(kind), left_out: LeftOut::Default }
}

const fn required(name: &'static str, about: &'static str) -> Key {
    Key { name, about, form: Form::Setting(Kind::Text { default: "" }), left_out: LeftOut::Required }
}

/// A key whose kind's default does not count: what holds without it is said in words.
const fn optional(name: &'static str, about: &'static str, kind: Kind, words: &'static str) -> Key {
    Key { name, about, form: Form::Setting(kind), left_out: LeftOut::Words(words) }
}

const fn number(default: f64, range: Range) -> Kind {
    Kind::Number { default, range }
}

const fn count(default: usize, least: usize, most: usize) -> Kind {
    Kind::Count { default, least, most }
}

const TEXT: Kind = Kind::Text { default: "" };
const FLAG: Kind = Kind::Flag { default: true };

/// The largest seed: TOML's integers have a sign.
const MOST_SEED: usize = usize::MAX >> 1;
const MOST_EPOCHS: usize = 1_000_000;
const MOST_BATCH: usize = 1 << 20;
const MOST_THREADS: usize = 1024;
const MOST_BATCHES: usize = 65_536;

/// The most replicas that teach each other.
pub const MOST_REPLICAS: usize = 64;

const EPOCHS: Key = key("epochs", "passes over the training samples", count(20, 1, MOST_EPOCHS));
const BATCH: Key = key("batch", "samples of a batch", count(64, 1, MOST_BATCH));
const OPTIMIZER_KEY: Key = Key {
    name: "optimizer",
    about: "what steps, with its options: { kind = \"adamw\", lr = 1e-3 }",
    form: Form::Entry(&OPTIMIZER),
    left_out: LeftOut::Entry("adamw"),
};
const SCHEDULE_KEY: Key = Key {
    name: "schedule",
    about: "the learning rate over time, as a factor of the optimizer's `lr`",
    form: Form::Entry(&SCHEDULE),
    left_out: LeftOut::Entry("cosine"),
};
const AS_TRAIN: LeftOut = LeftOut::Words("that of `[train]`");

/// The words of [`Precision`](crate::gpu::Precision).
pub const PRECISIONS: &[&str] = &["f32", "tf32"];

static RUN: &[Key] = &[
    optional("name", "for people; the run folder is `runs/NAME`", TEXT, "the recipe's file name without `.toml`"),
    key("seed", "decides every random number", count(1, 0, MOST_SEED)),
    key("device", "where it is computed: `cpu` or `cuda:N`", Kind::Text { default: "cpu" }),
    optional(
        "threads",
        "threads that compute; the result does not depend on it",
        count(1, 1, MOST_THREADS),
        "all cores of this machine",
    ),
    optional(
        "loaders",
        "threads that load and augment batches ahead of the step (0: each step loads its own); the result does not depend on it",
        count(1, 0, MOST_THREADS),
        "a quarter of `threads`, at least 1",
    ),
    key(
        "precision",
        "of products: `tf32` keeps 11 bits of each factor, on a GPU, whose matrix units multiply such numbers",
        Kind::Choice { default: "f32", known: PRECISIONS },
    ),
];

static DATA: &[Key] = &[
    required("format", "a format of data, one of those below"),
    key("path", "file or folder, relative to the working directory; empty for embedded data", TEXT),
    Key {
        name: "read",
        about: "how files become samples, where the format leaves it open",
        form: Form::Entry(&READING),
        left_out: LeftOut::Words("as the format does by itself"),
    },
    key(
        "normalize",
        "scaling of raw values: `none`; `unit`, to 0..1 where the format knows its range; `standard`, then to mean 0 and \
         deviation 1 per channel of the training samples, of a table per column; `sample`, each channel of a sample by its own \
         mean and deviation (z-normalization of series)",
        Kind::Choice { default: "standard", known: &["none", "unit", "standard", "sample"] },
    ),
    key(
        "subset",
        "share of the training samples that is kept, the same of each class",
        number(1.0, Range::PositiveShare),
    ),
    Key {
        name: "exclude_classes",
        about: "names of classes whose training samples are left out",
        form: Form::Texts,
        left_out: LeftOut::Default,
    },
    key(
        "validation",
        "share of the training samples that is held out to select an epoch, the same of each class",
        number(0.1, Range::BelowOne),
    ),
    key(
        "labelled",
        "share of the training samples whose label the losses see, the same of each class and at least one; all are in the \
         batches, the others teach by the teacher's answers alone",
        number(1.0, Range::PositiveShare),
    ),
    Key {
        name: "augment",
        about: "changes of training samples, in order, each with its options",
        form: Form::Entries(&AUGMENTATION),
        left_out: LeftOut::Default,
    },
];

static TEACHER: &[Key] = &[
    optional("run", "folder of a run whose student teaches", TEXT, "one of `run`, `onnx`, `arch` must be there"),
    optional("onnx", "model file that teaches", TEXT, "one of `run`, `onnx`, `arch` must be there"),
    optional("contract", "contract of the model of `onnx`", TEXT, "`contract.json` beside the model"),
    optional(
        "arch",
        "architecture that is trained first; its options stand beside it",
        TEXT,
        "one of `run`, `onnx`, `arch` must be there",
    ),
    optional(
        "must_reach",
        "share of right answers on the validation samples (on the training samples without any) below which it is refused",
        number(0.0, Range::Share),
        "any teacher will do that the recipe trains; another has to know more than who guesses",
    ),
    key("weight", "its share in the mean of several teachers, divided by the sum of all", number(1.0, Range::Positive)),
    key(
        "cache",
        "whether its answers to all training samples are computed once and kept in the run folder: `auto`, where samples are \
         not augmented or `cache_views` is set, or `off`",
        Kind::Choice { default: "auto", known: &["auto", "off"] },
    ),
    key(
        "cache_views",
        "augmented views of each sample that a cache holds and epochs take in turn; 0: augmented samples are not cached",
        count(0, 0, 10_000),
    ),
    key(
        "cache_precision",
        "how a cache keeps values; probabilities are kept in f32",
        Kind::Choice { default: "f32", known: &["f32", "f16"] },
    ),
    optional(
        "count",
        "so many teachers of this `arch`, each with first weights and an order of the samples of its own: an ensemble",
        count(1, 1, 64),
        "1",
    ),
    Key { left_out: AS_TRAIN, ..EPOCHS },
    Key { left_out: AS_TRAIN, ..BATCH },
    Key { left_out: AS_TRAIN, ..OPTIMIZER_KEY },
    Key { left_out: AS_TRAIN, ..SCHEDULE_KEY },
];

static STUDENT: &[Key] = &[required("arch", "architecture; its options stand beside it")];

static TRAIN: &[Key] = &[
    EPOCHS,
    BATCH,
    key(
        "accumulate",
        "batches of a step, whose gradient is the mean over all their samples; batch norm still sees one batch at a time",
        count(1, 1, MOST_BATCHES),
    ),
    OPTIMIZER_KEY,
    SCHEDULE_KEY,
    key("decay_norm_and_bias", "whether weight decay also acts on biases and normalizations", FLAG),
    key("label_smoothing", "label smoothing of the task's cross-entropy", number(0.0, Range::BelowOne)),
    key(
        "class_weights",
        "how the task's cross-entropy weighs the samples of a batch: `equal`, all alike, or `balanced`, each by samples / (classes · samples \
         of its class), so that rare classes count as much as others",
        Kind::Choice { default: "equal", known: &["equal", "balanced"] },
    ),
    optional(
        "clip_value",
        "largest size of an element of the gradient; larger ones are brought down to it, before `clip_norm`",
        number(0.0, Range::Positive),
        "not clipped",
    ),
    optional(
        "clip_norm",
        "largest 2-norm of all gradients together; larger ones are scaled down",
        number(0.0, Range::Positive),
        "not clipped",
    ),
    optional(
        "max_norm",
        "largest 2-norm of the incoming weights of one unit",
        number(0.0, Range::Positive),
        "no limit",
    ),
    optional(
        "ema",
        "share of the moving average of the parameters that is kept each step; the average is evaluated and kept instead \
         of the parameters",
        number(0.0, Range::BelowOne),
        "no average",
    ),
    key("ema_warmup", "whether step `t` keeps at most `(1 + t) / (10 + t)` of that average", FLAG),
    Key {
        name: "groups",
        about: "what holds for the student's parameters by their names; the first group that matches counts",
        form: Form::Groups,
        left_out: LeftOut::Default,
    },
    optional(
        "patience",
        "epochs without a better validation accuracy after which training ends",
        count(0, 1, MOST_EPOCHS),
        "all epochs",
    ),
    key(
        "keep",
        "which epoch's network is the result: `selected`, the best on the validation samples (the last without any), or `last`",
        Kind::Choice { default: "selected", known: &["selected", "last"] },
    ),
];

static DISTILL: &[Key] = &[
    key(
        "scheme",
        "who teaches: frozen teachers (`offline`; methods that need no teacher belong here too), or replicas of the student \
         each other (`codistill`; `dml` is the same as deep mutual learning has it)",
        Kind::Choice { default: "offline", known: &["offline", "codistill", "dml"] },
    ),
    optional(
        "replicas",
        "of `codistill`: how many there are",
        count(2, 2, MOST_REPLICAS),
        "2, or one more than `peers`",
    ),
    Key {
        name: "peers",
        about: "of `codistill`: architectures of replica 2 and on, where they are not the student's; replica 1 is the student",
        form: Form::Entries(&ARCH),
        left_out: LeftOut::Default,
    },
    optional(
        "burn_in_steps",
        "of `codistill`: steps before any replica listens to the others",
        count(0, 0, usize::MAX >> 1),
        "the steps of one epoch; of `dml` 0",
    ),
    optional(
        "exchange_steps",
        "of `codistill`: steps between exchanges of parameters, counted from the begin of each epoch",
        count(50, 1, usize::MAX >> 1),
        "50; of `dml` 1",
    ),
    optional(
        "shards",
        "of `codistill`: whether replicas learn from shares of the training samples that have none in common (`disjoint`) or \
         from all of them (`same`)",
        Kind::Choice { default: "disjoint", known: &["disjoint", "same"] },
        "`\"disjoint\"`; of `dml` `\"same\"`",
    ),
    Key {
        name: "assistants",
        about: "networks between the teachers and the student, each taught by the one before it as the student is by the last: \
                of sizes between (Mirzadeh et al. 2020, arXiv 1902.03393), or generations of the student's own architecture \
                (Furlanello et al. 2018, arXiv 1805.04770; the first learns from the labels where there is no teacher)",
        form: Form::Entries(&ARCH),
        left_out: LeftOut::Default,
    },
    key("task_weight", "factor of the task's cross-entropy", number(1.0, Range::NotNegative)),
    optional(
        "init_epochs",
        "epochs before those of `[train]` in which only the terms of the stage `init` count; schedules begin anew after them",
        count(0, 0, MOST_EPOCHS),
        "0; with a term that has a second stage (`ab` without a `stage`), an eighth of those of `[train]`",
    ),
    key(
        "diagnose",
        "whether the first step of each epoch also measures the 2-norm of each weighted term's gradient by the student's \
         parameters: in metrics.jsonl, there and on the line of progress relative to the task's too (without one, to the \
         first term's)",
        Kind::Flag { default: false },
    ),
    Key {
        name: "terms",
        about: "losses that are added to the task's, each with its options",
        form: Form::Terms,
        left_out: LeftOut::Words("`[]`; of `dml` `[{ method = \"codistill\", psi = \"kl\" }]`"),
    },
];

/// Keys of each group of `train.groups`.
pub static GROUP: &[Key] = &[
    required("match", "names of parameters: `*` stands for any letters, `?` for any one"),
    key("lr_factor", "times the learning rate", number(1.0, Range::NotNegative)),
    optional("weight_decay", "instead of the optimizer's", number(0.0, Range::NotNegative), "the optimizer's"),
    key("frozen", "whether they stay as they are", Kind::Flag { default: false }),
];

/// Keys of each term, besides `method` and its options.
pub static TERM: &[Key] = &[
    optional("weight", "factor of the term", number(1.0, Range::NotNegative), "the method's"),
    optional(
        "stage",
        "when the term counts: in the epochs of `[train]` (`main`), in the `init_epochs` before them (`init`), in `both`",
        Kind::Choice { default: "main", known: &["main", "init", "both"] },
        "`\"main\"`; of `ab` what its `stage2` says",
    ),
    Key {
        name: "schedule",
        about: "multiplies the weight over time",
        form: Form::Entry(&SCHEDULE),
        left_out: LeftOut::Words("always 1"),
    },
];

static COMPARE: &[Key] = &[
    optional(
        "baseline",
        "whether the same student is also trained alone, for as many epochs in all",
        FLAG,
        "true where there are terms",
    ),
    key(
        "seeds",
        "seeds of the students; the first one's networks are kept in the run folder",
        Kind::Counts { default: &[], least_len: 0, least: 0, most: MOST_SEED },
    ),
];

static BUDGET: &[Key] =
    &[optional("file", "limits that the student must meet, relative to the working directory", TEXT, "no limits")];

/// Every section with its keys.
pub static SECTIONS: &[Section] = &[
    Section { name: "run", about: "what it is called and where it is computed", keys: RUN, table: None },
    Section { name: "data", about: "what is learned from", keys: DATA, table: None },
    Section {
        name: "teacher",
        about: "who teaches; `[[teacher]]`, repeated, for several",
        keys: TEACHER,
        table: Some(&ARCH),
    },
    Section { name: "student", about: "the network that is wanted", keys: STUDENT, table: Some(&ARCH) },
    Section { name: "train", about: "how it learns", keys: TRAIN, table: None },
    Section { name: "distill", about: "what the teachers hand over", keys: DISTILL, table: None },
    Section { name: "compare", about: "what it is compared with", keys: COMPARE, table: None },
    Section { name: "budget", about: "what the device can bear", keys: BUDGET, table: None },
];

impl Table {
    /// Names of its entries.
    pub fn names(&self) -> Vec<&'static str> {
        (self.rows)().iter().map(|row| row.name).collect()
    }

    /// The entry of this name.
    pub fn row(&self, name: &str) -> Option<Row> {
        (self.rows)().into_iter().find(|row| row.name == name)
    }

    /// `an optimizer`.
    pub fn singular(&self) -> String {
        format!("{} {}", if self.what.starts_with(['a', 'o']) { "an" } else { "a" }, self.what)
    }

    /// What an entry is, for messages and docs: `an optimizer { kind = … }`.
    pub fn words(&self) -> String {
        format!("{} {{ {} = … }}", self.singular(), self.key)
    }
}

impl Key {
    /// What it may be, for messages and docs.
    pub fn words(&self) -> String {
        match self.form {
            Form::Setting(kind) => kind.words(),
            Form::Texts => "a list of texts".into(),
            Form::Entry(table) => table.words(),
            Form::Entries(table) => format!("a list of {}s {{ {} = … }}", table.what, table.key),
            Form::Groups => "a list of groups { match = … }".into(),
            Form::Terms => format!("a list of terms {{ {} = …, weight = … }}", METHOD.key),
        }
    }

    /// What holds when it is left out, for docs.
    pub fn default_words(&self) -> String {
        match (self.left_out, self.form) {
            (LeftOut::Required, _) => "required".into(),
            (LeftOut::Words(words), _) => words.into(),
            (LeftOut::Entry(name), Form::Entry(table)) => format!("`{{ {} = \"{name}\" }}`", table.key),
            (_, Form::Setting(kind)) => format!("`{}`", kind.left_out()),
            _ => "`[]`".into(),
        }
    }
}
