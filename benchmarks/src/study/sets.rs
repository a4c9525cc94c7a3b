//! The data sets of a folder in UCR's layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kd_runtime::{Exit, Refusal, Result};

/// The sets of a folder by name, each with the path that the reader takes: `NAME_TRAIN…` in the folder itself, or in a folder
/// `NAME` there, as the archive has them. Refuses a folder without any.
pub fn find(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut sets = BTreeMap::new();
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            let inside = entries(&path)?;
            let is_of_it =
                |(file, _): &(String, PathBuf)| file.split_once("_TRAIN").is_some_and(|(set, _)| set == name);
            if inside.iter().any(is_of_it) {
                sets.entry(name.clone()).or_insert(path.join(name));
            }
        } else if let Some((set, _)) = name.split_once("_TRAIN") {
            sets.insert(set.to_string(), folder.join(set));
        }
    }
    if sets.is_empty() {
        let expected = "UCR sets, files NAME_TRAIN… and NAME_TEST… in it or in folders NAME of it";
        return Err(Refusal::new(folder.display(), expected, "none", "name another folder"));
    }
    Ok(sets)
}

/// What is in a folder, with its path.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let lacking =
        |e| Refusal::new(folder.display(), "a folder of UCR sets", e, "name another").with_exit(Exit::Lacking);
    let entries = std::fs::read_dir(folder).map_err(lacking)?;
    Ok(entries.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.to_string(), entry.path()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn sets_lie_in_the_folder_or_in_folders_of_their_names() {
        let scratch = Scratch::new("sets").unwrap();
        let folder = scratch.path();
        let refusal = find(folder).err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(refusal.contains("expected UCR sets") && refusal.ends_with("found none; name another folder"));
        for inner in ["Beef", "Adjusted"] {
            std::fs::create_dir(folder.join(inner)).unwrap();
        }
        for file in
            ["Beef/Beef_TRAIN.tsv", "Beef/Beef_TEST.tsv", "Adjusted/Other_TRAIN.tsv", "Car_TRAIN.ts.gz", "README"]
        {
            std::fs::write(folder.join(file), "").unwrap();
        }
        let found = find(folder).unwrap();
        let expected = [("Beef", "Beef/Beef"), ("Car", "Car")].map(|(name, at)| (name.to_string(), folder.join(at)));
        assert_eq!(found, expected.into());
    }
}
