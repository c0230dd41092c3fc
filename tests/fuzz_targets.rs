//! The fuzz targets for a moment: every seed, and seeds with random damage. CONTRIBUTING.md says how to
//! run them for longer.

// Exported there for the targets of libFuzzer.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder("seeds").join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One damage: some bytes at some place are replaced by others.
type Damage = (Index, usize, Vec<u8>);

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        // What means something in one of the formats.
        prop::sample::select(&b"&=%+'?#,:;\"{}[]()<>\\/\n\r\t $*|.0-9\xff\0"[..]).prop_map(|byte| vec![byte]),
        "\\PC{0,6}".prop_map(String::into_bytes),
    ];
    (any::<Index>(), 0..6_usize, bytes)
}

fn damaged(seed: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (at, length, replacement) in damages {
        let start = at.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, replacement.iter().copied());
    }
    bytes
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(have, _)| *have == name).expect("a target");
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| target(seed));
    target(b"");
    let strategy = (any::<Index>(), prop::collection::vec(damage(), 0..8));
    // `PROPTEST_CASES` asks for more.
    let config = Config { failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&strategy, |(seed, damages)| {
        target(&damaged(&seeds[seed.index(seeds.len())], &damages));
        Ok(())
    });
    checked.unwrap_or_else(|failed| panic!("{name}: {failed}"));
}

#[test]
fn webhooks() {
    run("webhook");
}

#[test]
fn configurations() {
    run("configuration");
}

#[test]
fn subscribers_files() {
    run("subscribers");
}

#[test]
fn retry_after_values() {
    run("retry_after");
}

#[test]
fn provider_answers() {
    run("provider_answer");
}

#[test]
fn forwarded_for_headers() {
    run("forwarded_for");
}

#[test]
fn stored_messages() {
    run("stored_message");
}

#[test]
fn every_target_is_run_here_and_by_libfuzzer() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        let file = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(file.contains(&format!("sms_broadcaster_fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(include_str!("fuzz_targets.rs").contains(&format!("run(\"{name}\");")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets::TARGETS.len());
}
