//! Who teaches whom, as `kd-train methods` lists it. What a recipe says of it is `[teacher]` and `[distill]`.

/// A row of the table of schemes.
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is, on one line.
    pub about: &'static str,
    /// Who published it, on few columns.
    pub cite: &'static str,
    /// Paper.
    pub source: &'static str,
    /// The keys that make it, and what they do: lines of Markdown.
    pub keys: &'static str,
    /// What its recipe has before `[student]`.
    pub teacher: &'static str,
    /// What its recipe has below `[distill]`.
    pub recipe: &'static str,
}

/// A teacher that is trained first.
pub const TEACHER: &str = "[teacher]\narch = \"cnn\"\nwidths = [16, 32, 32]\nepochs = 10\n\n";

/// Every scheme.
pub static SCHEMES: &[Row] = &[
    Row {
        name: "offline",
        about: "a frozen teacher hands over what it knows",
        cite: "Hinton et al. 2015",
        source: "Hinton, Vinyals, Dean 2015 (arXiv 1503.02531)",
        keys: "`[teacher]` says where the teacher comes from: `arch` (trained first), `run` (the student of another run) or `onnx`; \
            `must_reach` refuses one that is not good enough, `cache` keeps its answers. It is `distill.scheme = \"offline\"`, \
            which holds without any; a method that needs no teacher needs no `[teacher]`.",
        teacher: TEACHER,
        recipe: "terms = [{ method = \"kd\" }]\n",
    },
    Row {
        name: "ensemble",
        about: "several frozen teachers, whose answers are averaged",
        cite: "Hinton et al. 2015",
        source: "Hinton, Vinyals, Dean 2015 (arXiv 1503.02531) §5",
        keys: "`[[teacher]]`, once for each, with its share `weight`, or `count` of one architecture; `average` of a term that has \
            it says whether probabilities or logits are averaged (else probabilities). The methods are those of answers: inner values of several networks have no mean.",
        teacher: "[[teacher]]\narch = \"cnn\"\nwidths = [16, 32, 32]\nepochs = 10\n\n\
            [[teacher]]\narch = \"mlp\"\nhidden = [64]\nepochs = 10\nweight = 0.5\n\n",
        recipe: "terms = [{ method = \"kd\", average = \"probabilities\" }]\n",
    },
    Row {
        name: "assistants",
        about: "networks of sizes between, each taught by the one before it",
        cite: "Mirzadeh et al. 2020",
        source: "Mirzadeh et al. 2020 (arXiv 1902.03393)",
        keys: "`distill.assistants`, from the largest to the smallest, beside `[teacher]`: each learns by the terms of the recipe from \
            the one before it, the student from the last.",
        teacher: TEACHER,
        recipe: "assistants = [{ arch = \"cnn\", widths = [12, 24, 24] }]\nterms = [{ method = \"kd\" }]\n",
    },
    Row {
        name: "born_again",
        about: "generations of one architecture, each taught by the one before it",
        cite: "Furlanello et al. 2018",
        source: "Furlanello et al. 2018 (arXiv 1805.04770)",
        keys: "`distill.assistants` of the student's own architecture, without `[teacher]`: the first generation learns from the labels, \
            the student is the last.",
        teacher: "",
        recipe: "assistants = [{ arch = \"cnn\", widths = [8, 16, 16] }]\nterms = [{ method = \"kd\", temperature = 1.0 }]\n",
    },
    Row {
        name: "codistill",
        about: "replicas of the student teach each other while they learn",
        cite: "Anil et al. 2018",
        source: "Anil et al. 2018 (arXiv 1804.03235)",
        keys: "`distill.scheme = \"codistill\"` with `replicas`, `burn_in_steps`, `exchange_steps` and `shards`, without `[teacher]`; the \
            term is `codistill`, or another method of answers. `kd-train run --replica N/OF --exchange PLACE` trains one replica in \
            a process of its own.",
        teacher: "",
        recipe: "scheme = \"codistill\"\nreplicas = 2\nterms = [{ method = \"codistill\" }]\n",
    },
    Row {
        name: "dml",
        about: "mutual learning: networks, usually unlike, teach each other at every step",
        cite: "Zhang et al. 2018",
        source: "Zhang, Xiang, Hospedales, Lu 2018 (arXiv 1706.00384)",
        keys: "`distill.scheme = \"dml\"`: that of `codistill` without burn-in, with an exchange at every step, all samples for each and \
            the term `{ method = \"codistill\", psi = \"kl\" }`, as far as the recipe says nothing else; `peers` are the architectures \
            beside the student.",
        teacher: "",
        recipe: "scheme = \"dml\"\npeers = [{ arch = \"mlp\", hidden = [64] }]\n",
    },
    Row {
        name: "self",
        about: "the student teaches itself: by its exits, its past, its neighbors",
        cite: "Zhang et al. 2019",
        source: "Zhang et al. 2019 (arXiv 1905.08094) for exits",
        keys: "A method of the scheme `self` and no `[teacher]`. With `byot` every stage gets an exit: the run keeps each as a network of \
            its own, and says what leaving at the first exit that is sure gives; `kd-export --exit N` exports one.",
        teacher: "",
        recipe: "terms = [{ method = \"byot\" }]\n",
    },
];
