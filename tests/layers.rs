//! Imports point downward only. The floors are read from the map in `src/lib.rs`, so that map cannot lie.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A place in the order of the map: floor, then position. A room may use what stands before it.
struct Room {
    floor: u32,
    /// `["queue"]`, or `["queue", "contract"]` for the part of a module that has a floor of its own.
    path: Vec<String>,
}

/// The rooms in the order in which the map names them.
fn map() -> Vec<Room> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("the library's map");
    let mut floor = None;
    let mut rooms = Vec::new();
    for line in lib.lines().skip_while(|line| !line.contains("# Floors")) {
        let Some(text) = line.strip_prefix("//!") else { break };
        let text = text.trim_start();
        if let Some(number) = text.strip_prefix("* ").and_then(|item| item.split(' ').next()?.parse().ok()) {
            floor = Some(number);
        }
        let Some(floor) = floor else { continue };
        for link in text.split("[`").skip(1) {
            let name = link.split("`]").next().expect("a closed link");
            rooms.push(Room { floor, path: name.split("::").map(str::to_owned).collect() });
        }
    }
    rooms
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The position in the map of what a path within the crate belongs to: the longest name that fits.
fn room(map: &[Room], path: &[String]) -> Option<usize> {
    (0..map.len()).filter(|&at| path.starts_with(&map[at].path)).max_by_key(|&at| map[at].path.len())
}

/// `src/queue/redis/link.rs` is `queue::redis::link`.
fn module(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(root().join("src")).expect("a file of the source").with_extension("");
    let mut path: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// The paths that follow `crate::` in a source, groups taken apart one level: `crate::{a::b, c}` gives both.
fn imports(source: &str) -> BTreeSet<Vec<String>> {
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    );
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => {
                found.insert(path(rest));
            }
            Some(group) => {
                let mut depth = 1;
                let mut start = 0;
                for (at, character) in group.char_indices() {
                    depth += match character {
                        '{' => 1,
                        '}' => -1,
                        _ => 0,
                    };
                    if depth == 0 || (depth == 1 && character == ',') {
                        found.insert(path(group[start..at].trim()));
                        start = at + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found.remove(&vec![String::new()]);
    found
}

fn path(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    text[..end].trim_end_matches(':').split("::").map(str::to_owned).collect()
}

#[test]
fn every_module_stands_on_the_map_and_uses_only_what_stands_before_it() {
    let map = map();
    assert!(map.len() > 20, "the map was read: {} rooms", map.len());
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut faults = Vec::new();
    for file in &files {
        let module = module(file);
        if module == ["lib"] || module == ["queue"] || module == ["channel"] || module == ["source"] {
            continue; // declarations only
        }
        let Some(here) = room(&map, &module) else {
            faults.push(format!("{} is not on the map in src/lib.rs", module.join("::")));
            continue;
        };
        for import in imports(&fs::read_to_string(file).expect("a source")) {
            match room(&map, &import) {
                None => faults.push(format!(
                    "{} uses {}, which is not on the map",
                    module.join("::"),
                    import.join("::")
                )),
                Some(there) if there > here => faults.push(format!(
                    "{} (floor {}) uses {} (floor {}): imports point downward only",
                    module.join("::"),
                    map[here].floor,
                    import.join("::"),
                    map[there].floor
                )),
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_the_assembly_knows_the_back_ends_and_the_whole_configuration() {
    let map = map();
    let assembly = map.iter().map(|room| room.floor).max().expect("floors");
    let concrete = [["queue", "redis"], ["queue", "embedded"]];
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut faults = Vec::new();
    for file in &files {
        let module = module(file);
        let Some(here) = room(&map, &module) else { continue };
        if map[here].floor == assembly || module[0] == "queue" {
            continue;
        }
        for import in imports(&fs::read_to_string(file).expect("a source")) {
            if concrete.iter().any(|back_end| import.starts_with(&back_end.map(str::to_owned)))
                || import[0] == "config"
            {
                faults.push(format!("{} uses {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_mod_file_holds_declarations_only() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let stray: Vec<String> = files
        .iter()
        .filter(|file| file.ends_with("mod.rs"))
        .filter(|file| {
            let source = fs::read_to_string(file).expect("a source");
            source.lines().any(|line| {
                let line = line.trim_start();
                ["fn ", "pub fn ", "struct ", "pub struct ", "enum ", "pub enum ", "impl "]
                    .iter()
                    .any(|start| line.starts_with(start))
            })
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(stray.is_empty(), "{stray:?}");
}
