//! A Redis that lets in only a user who may do what docs/operations.md says, by TLS alone.

use crate::support::certificates::Authority;
use crate::support::installation::{Installation, PHONES, sid};
use crate::support::ledger::{Allowed, Ledger, SENDER, text};
use crate::support::ports::free_port;
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// The rule as documented: the lines of the block that begins with it, as one.
fn documented_rule() -> String {
    let page = include_str!("../../docs/operations.md");
    let from = page.find("ACL SETUSER").expect("the rule is documented");
    let block = page[from..].split("```").next().expect("the block ends");
    block.replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What scripts call, and what is asked without one.
fn commands() -> Vec<String> {
    let scripts = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/scripts")).unwrap();
    let mut found = Vec::new();
    for script in scripts {
        let text = std::fs::read_to_string(script.unwrap().path()).unwrap();
        // Commands are the only quoted words in capitals that are followed by an argument.
        for word in text.split('\'').skip(1).step_by(2) {
            if word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
                found.push(word.to_ascii_lowercase());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_documented_rule_allows_every_command_of_the_scripts_and_nothing_else_that_the_server_knows() {
    let server = RedisServer::start();
    assert_eq!(server.command(&documented_rule().replace("PASSWORD", "pw")), "+OK");
    let allowed =
        |command: &str| documented_rule().split(' ').any(|word| word.strip_prefix('+') == Some(command));
    let known = |command: &str| !server.command(&format!("COMMAND INFO {command}")).ends_with("-1");
    for command in commands() {
        // Words in capitals that are no commands are options of some.
        if known(&command) && !["count", "limit", "time"].contains(&command.as_str()) {
            assert!(allowed(&command), "{command} is not in the documented rule");
        }
    }
    assert!(allowed("time"));
    for never in ["flushall", "keys", "eval", "config", "acl", "shutdown", "debug", "replicaof", "module"] {
        assert!(!allowed(never), "{never}");
    }
}

#[tokio::test]
async fn services_and_operator_need_no_more_than_the_documented_rule() {
    let provider = Provider::start();
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = authority.write(folder.path().join("ca.crt"));
    let own = authority.issue(folder.path(), "server", "127.0.0.1");
    let port = free_port().to_string();
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let redis = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        &path(&ca),
        "--tls-cert-file",
        &path(&own.certificate),
        "--tls-key-file",
        &path(&own.key),
        "--tls-auth-clients",
        "no",
        "--acllog-max-len",
        "1000",
    ]);
    assert_eq!(redis.command(&documented_rule().replace("PASSWORD", "s:cret,")), "+OK");
    let queue = format!(
        "backend = \"redis\"\nurl = \"rediss://sms-broadcaster:s%3Acret%2C@127.0.0.1:{port}\"\ntls_ca_file = \"{}\"",
        ca.display()
    );
    let fast = "[channel.sms]\nrate_per_destination = \"off\"\nrate = \"off\"\n\n\
                [channel.slack]\nrate_per_destination = \"off\"\nrate = \"off\"\n";
    let installation = Installation::with_queue(&provider, &queue, fast);
    let mut ingress = installation.start("sms-ingress").await;
    let mut worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..20, 4).await;
    ledger.check(&installation, &provider, Allowed::default()).await;

    // What fails for good becomes letters, which the operator looks at, requeues and forgets.
    provider.always(PHONES[0], Reply::status(400));
    assert_eq!(installation.post(ingress.ingress, &sid(90), SENDER, &text(90)).await, Some(200));
    installation.wait_until_done(&sid(90)).await;
    provider.always(PHONES[0], Reply::ok());
    for arguments in [
        &["check"][..],
        &["stats", "--json"],
        &["dead", "list", "--json"],
        &["dead", "requeue", "--all", "--yes", "--json"],
        &["dead", "purge", "--all", "--yes"],
        &["status", &sid(1), "--json"],
    ] {
        let output = installation.smsctl(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "smsctl {arguments:?}: {errors}");
    }
    assert_eq!((ingress.stop(), worker.stop()), (Some(0), Some(0)));
    // Nothing was even tried that is not allowed, but what a newer server would have known.
    let refused = redis.command("ACL LOG");
    assert!(refused.starts_with("*0"), "{refused}");
}
