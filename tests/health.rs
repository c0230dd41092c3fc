//! `--health`, which containers are checked by.

use std::process::Command;

use crate::support::installation::{Installation, Program, path_of};
use crate::support::provider::Provider;
use crate::support::redis_server::RedisServer;

/// Exit code and words of `--health`, as a container's health check runs it on the file that `program` runs on.
fn health(installation: &Installation, name: &str, program: &Program) -> (Option<i32>, String) {
    let config = installation.folder().join(format!("{name}-{}.toml", program.ops));
    let mut command = Command::new(path_of("sms-broadcaster"));
    let asked = command.arg("--health").arg("--config").arg(config).output().expect("the program starts");
    (asked.status.code(), String::from_utf8_lossy(&asked.stderr).into_owned())
}

#[tokio::test]
async fn health_is_readiness_of_whichever_program_runs_on_the_configuration() {
    let mut redis = RedisServer::start();
    let provider = Provider::start();
    let installation = Installation::redis(&provider, &redis.url(), "");
    let mut ingress = installation.start("sms-ingress").await;
    let worker = installation.start("sms-worker").await;
    assert_eq!(health(&installation, "sms-ingress", &ingress), (Some(0), String::new()));
    assert_eq!(health(&installation, "sms-worker", &worker), (Some(0), String::new()));

    redis.kill();
    let not_ready = (Some(1), "not ready: unavailable\n".to_owned());
    assert_eq!(health(&installation, "sms-worker", &worker), not_ready);
    redis.restart();

    ingress.kill();
    let (code, words) = health(&installation, "sms-ingress", &ingress);
    assert_eq!(code, Some(1));
    assert!(words.starts_with("no answer from 127.0.0.1:"), "{words}");
}
