//! The names of every table stand in a document, so that no entry is added without a line on it; and every file of a method
//! stands in the table of methods.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sources::{self, read};

/// Files that the tables of names must be found in: table, how a line of it names an entry, document.
const DOCUMENTED: &[(&str, Naming, &str)] = &[
    ("runtime/src/ops/table.rs", Naming::Operator, "docs/operators.md"),
    ("trainer/src/zoo/table.rs", Naming::Field, "docs/recipes.md"),
    ("trainer/src/optim/table.rs", Naming::Field, "docs/recipes.md"),
    ("trainer/src/data/augment/table.rs", Naming::Field, "docs/recipes.md"),
    ("runtime/src/data/table.rs", Naming::Field, "docs/measuring.md"),
    ("runtime/src/backend/table.rs", Naming::Field, "docs/measuring.md"),
    ("exporter/src/calibrate/table.rs", Naming::Field, "docs/architecture.md"),
    ("trainer/src/losses/table.rs", Naming::File, "docs/methods.md"),
];

enum Naming {
    /// `file::Name, 1..=1, …;`
    Operator,
    /// `name: "…"`
    Field,
    /// `file,`
    File,
}

/// Every name of a table stands in its document.
pub fn check() -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    for (table, naming, document) in DOCUMENTED {
        let names = names(&read(Path::new(table))?, naming);
        let text = read(Path::new(document))?;
        if names.is_empty() {
            complaints.push(format!("{table}: expected entries, found none"));
        }
        for name in names {
            if !text.contains(&format!("`{name}`")) {
                complaints.push(format!("{document}: expected a line on `{name}` of {table}, found none"));
            }
        }
    }
    let methods = Path::new("trainer/src/losses");
    let listed = names(&read(&methods.join("table.rs"))?, &Naming::File);
    for source in sources::all()?.iter().filter(|source| source.text.contains("pub static METHOD: Method")) {
        let file = Path::new(&source.path);
        if file.parent() == Some(methods)
            && file.file_stem().is_none_or(|name| !listed.contains(&*name.to_string_lossy()))
        {
            complaints.push(format!("{}: expected a line in table.rs beside it, found none", source.path));
        }
    }
    Ok(complaints)
}

fn names(table: &str, naming: &Naming) -> BTreeSet<String> {
    let name = |line: &str| match naming {
        Naming::Operator => {
            let (path, _) = line.trim().strip_suffix(';')?.split_once(", ")?;
            let (_, name) = path.split_once("::")?;
            name.chars().all(|c| c.is_ascii_alphanumeric()).then(|| name.to_string())
        }
        Naming::File => {
            let name = line.trim().strip_suffix(',')?;
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| name.to_string())
        }
        Naming::Field => line.split_once("name: \"")?.1.split_once('"').map(|(name, _)| name.to_string()),
    };
    table.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_kind_of_table() {
        let operators = "    arith::Add, 2..=2, 1..=1;\n    macro::noise;\n";
        let fields = "    Arch { name: \"mlp\", about: \"a\" },\n    about: \"name\",\n";
        let files = "    ($($file:ident,)+) => {\n    // Answers, and more,\n    mse_logits,\n}\n";
        assert_eq!(names(operators, &Naming::Operator), BTreeSet::from(["Add".to_string()]));
        assert_eq!(names(fields, &Naming::Field), BTreeSet::from(["mlp".to_string()]));
        assert_eq!(names(files, &Naming::File), BTreeSet::from(["mse_logits".to_string()]));
    }
}
