//! What is shipped beside the programs is what the programs take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sms_broadcaster::config::Config;
use sms_broadcaster::subscribers::Subscribers;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Any value does for a variable, but these have a form of their own.
fn environment(name: &str) -> Option<String> {
    Some(match name {
        "TWILIO_SID" => "AC00000000000000000000000000000000".to_owned(),
        "MFA_FROM_PHONE" => "+15005550006".to_owned(),
        "PUBLIC_URL" | "MFA_SLACK_WEBHOOK" => "https://mfa.example.com".to_owned(),
        _ => "secret".to_owned(),
    })
}

/// Loads a configuration whose secrets are files, as if those were there.
fn load(path: &str) -> Config {
    let path = root().join(path);
    let text = fs::read_to_string(&path).expect("the file");
    let text = text.replace("${file:/run/secrets/twilio-account-sid}", "AC00000000000000000000000000000000");
    let text = text.replace("${file:/run/secrets/twilio-auth-token}", "secret");
    let text = text.replace("${file:/run/secrets/redis-url}", "redis://redis:6379");
    Config::parse(&text, &path, &environment).unwrap_or_else(|faults| {
        panic!("{}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())
    })
}

#[test]
fn the_configurations_of_compose_and_kubernetes_are_valid() {
    for path in ["deploy/compose/config.toml", "deploy/kubernetes/base/config.toml"] {
        let config = load(path);
        assert!(
            config.ingress.listen.ip().is_unspecified() && config.ops_listen.ip().is_unspecified(),
            "{path}"
        );
    }
    let subscribers = root().join("deploy/compose/subscribers.toml");
    assert!(Subscribers::load(&subscribers, &environment).is_ok());
}

/// The lines of a page's code that begin with `smsctl`.
fn commands(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).expect("the page");
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("smsctl "));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_the_runbooks_tell_to_type_can_be_typed() {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs/runbooks"))
        .expect("the pages")
        .map(|entry| entry.expect("a page").path())
        .collect();
    pages.push(root().join("docs/operations.md"));
    let mut seen = std::collections::BTreeSet::new();
    for page in pages {
        for command in commands(&page) {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            let depth = if words[0] == "dead" { 2 } else { 1 };
            let asked = Command::new(env!("CARGO_BIN_EXE_smsctl"))
                .args(&words[..depth])
                .arg("--help")
                .output()
                .expect("smsctl starts");
            assert!(asked.status.success(), "{}: {command}", page.display());
            let help = String::from_utf8(asked.stdout).expect("text");
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(
                    help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                    "{}: {command}",
                    page.display()
                );
            }
            seen.insert(words[..depth].join(" "));
        }
    }
    assert!(seen.len() > 4, "{seen:?}");
}
