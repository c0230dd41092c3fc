//! The pages that name a test for each promise: the tests are there.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A page, where its promises begin and end, and how many tests it names at least.
const PAGES: [(&str, &str, &str, usize); 5] = [
    ("SECURITY.md", "## What holds these promises", "\n## ", 12),
    ("README.md", "## What is promised", "\n## ", 10),
    ("docs/guarantees.md", "## The promises", "\n## ", 20),
    ("docs/guarantees.md", "## Faults, and the tests that make them", "\n## ", 45),
    ("docs/guarantees.md", "## What fails when a way back is removed", "\n## ", 20),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        files(&root.join(folder), &mut paths);
    }
    let sources: String = paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    // Of a table only the last column names tests.
    let names = Regex::new("`([a-z0-9_:]+)(…?)`").expect("a pattern");
    for (page, begin, end, least) in PAGES {
        let text = fs::read_to_string(root.join(page)).expect(page);
        let (_, promises) = text.split_once(begin).unwrap_or_else(|| panic!("{page} has no {begin:?}"));
        let promises = promises.split(end).next().unwrap_or_default();
        let mut number = 0;
        for line in promises.lines() {
            let named =
                line.strip_suffix('|').map_or(line, |row| row.rsplit_once('|').map_or(row, |(_, last)| last));
            for found in names.captures_iter(named) {
                number += 1;
                let (name, is_cut) = (found[1].rsplit("::").next().expect("a name"), !found[2].is_empty());
                let is_there = if is_cut {
                    sources.contains(&format!("fn {name}"))
                } else {
                    sources.contains(&format!("fn {name}("))
                        || sources.contains(&format!("fn {name}<"))
                        || sources.contains(&format!("{name}: "))
                };
                assert!(is_there, "{page} names {name}, which is nowhere");
            }
        }
        assert!(number >= least, "{page}: {number}");
    }
}
