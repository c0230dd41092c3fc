//! How every service starts, is told things, and ends: flags, signals, files that change under it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::installation::{Installation, LOOK, PHONES, Program, RECIPIENTS, path_of, sid};
use crate::support::ledger::{Allowed, Ledger, SENDER, text};
use crate::support::provider::{AUTH_TOKEN, Provider, Reply};
use crate::support::redis_server::RedisServer;

const SERVICES: [&str; 3] = ["sms-broadcaster", "sms-ingress", "sms-worker"];

/// No limits, and time enough for a provider that hangs.
const PATIENT: &str = "[worker]\nlease = \"10m\"\ndrain = \"5m\"\n\n\
    [channel.sms]\ntimeout = \"5m\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"5m\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(path_of(program));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("the program starts")
}

#[tokio::test]
async fn every_service_checks_its_configuration_and_shows_it_masked() {
    let provider = Provider::start();
    let url = "redis://:hunter2secret@127.0.0.1:1/";
    let installation = Installation::redis(&provider, url, "");
    for program in SERVICES {
        let good = run(program, &["--check-config", "--config", "operator.toml"], installation.folder());
        let shown = String::from_utf8_lossy(&good.stdout);
        assert_eq!(good.status.code(), Some(0), "{program}: {}", String::from_utf8_lossy(&good.stderr));
        assert!(shown.contains("[queue]") && shown.contains("max_attempts"), "{program}: {shown}");
        for secret in [AUTH_TOKEN, "hunter2secret", "5005550006"] {
            assert!(!shown.contains(secret), "{program} shows {secret}: {shown}");
        }
        // What is shown is a configuration that can be read, apart from what is masked.
        toml::from_str::<toml::Table>(&shown).unwrap_or_else(|error| panic!("{program}: {error}"));
    }

    let bad = installation.folder().join("bad.toml");
    let good = fs::read_to_string(installation.folder().join("operator.toml")).unwrap();
    fs::write(&bad, good.replace("[ops]", "[ops]\nlisten_on = 1").replace("\nfrom =", "\nform =")).unwrap();
    for program in SERVICES {
        for arguments in [&["--check-config", "--config", "bad.toml"][..], &["--config", "bad.toml"]] {
            let refused = run(program, arguments, installation.folder());
            let errors = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(2), "{program}: {errors}");
            let faults = ["bad.toml:7: unknown key `ops.listen_on`", "unknown key `twilio.form`"];
            assert!(faults.iter().all(|fault| errors.contains(fault)), "not every fault: {errors}");
            assert!(!errors.contains(AUTH_TOKEN) && !errors.contains("hunter2secret"), "{errors}");
        }
        let none = run(program, &["--check-config", "--config", "none.toml"], installation.folder());
        assert_eq!(none.status.code(), Some(2));
        assert_eq!(run(program, &["--chekc-config"], installation.folder()).status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_check_reads_the_subscribers_too_whatever_the_service() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, "");
    installation.write_subscribers("[[subscriber]]\nname = \"A\"\nform = [\"AMAZON\"]\n");
    for program in SERVICES {
        let refused = run(program, &["--check-config", "--config", "operator.toml"], installation.folder());
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{program}: {errors}");
        assert!(
            errors.contains("subscribers.toml:3") && errors.contains("form") && errors.contains("fallback"),
            "{program}: {errors}"
        );
    }
}

#[tokio::test]
async fn the_second_sigterm_ends_a_service_at_once() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::hang());
    }
    let installation = Installation::embedded(&provider, PATIENT);
    let mut service = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(service.ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    provider.wait_until("all three attempts hang", |requests| requests.len() == 3).await;

    service.signal("TERM");
    installation.wait_for_readiness(&mut service, 503).await;
    // It waits for its attempts, which take minutes: it does not end by itself.
    assert!(service.has_ended().is_none());
    service.signal("TERM");
    let ended = service.wait_for_end().await;
    assert!(ended.code().is_some_and(|code| code != 0), "{ended:?}");

    // Nothing is lost by it.
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }
    let _again = installation.start("sms-broadcaster").await;
    provider
        .wait_until("all three have it", |requests| requests.iter().filter(|r| r.accepted()).count() == 3)
        .await;
}

#[tokio::test]
async fn sigint_drains_as_sigterm_does() {
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), "");
    for program in SERVICES {
        let mut running = installation.start(program).await;
        running.signal("INT");
        assert_eq!(running.wait_for_end().await.code(), Some(0), "{program}");
    }
}

#[tokio::test]
async fn workers_that_are_told_to_end_hand_over_without_one_duplicate() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok().delayed(Duration::from_millis(100)));
    }
    let redis = RedisServer::start();
    // A lease that outlives the test: what is not handed over does not arrive.
    let installation = Installation::redis(&provider, &redis.url(), PATIENT);
    let ingress = installation.start("sms-ingress").await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(installation.start("sms-worker").await);
    }
    let ledger = Ledger::new();
    for round in 0..6 {
        let posting = {
            let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
            let numbers = round * 40..(round + 1) * 40;
            tokio::spawn(async move { ledger.post_all(&poster, &[door], numbers, 4).await })
        };
        // Each worker has some in hand then.
        provider.wait_for_more(20).await;
        ledger.fault();
        let mut leaving = workers.remove(0);
        leaving.signal("TERM");
        workers.push(installation.program("sms-worker").spawn());
        assert_eq!(leaving.wait_for_end().await.code(), Some(0));
        posting.await.unwrap();
    }
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("scale-in", "one of three workers told to end, six times");
    let worker = workers.last_mut().expect("a worker");
    installation.wait_for_readiness(worker, 200).await;
    installation.wait_for_metric(worker, "sms_broadcaster_leases_reclaimed_total 0").await;
}

/// Who gets a message posted now.
async fn recipients_of(
    installation: &Installation,
    provider: &Provider,
    service: &Program,
    number: u32,
) -> Vec<String> {
    assert_eq!(installation.post(service.ingress, &sid(number), SENDER, &text(number)).await, Some(200));
    let status = installation.wait_until_done(&sid(number)).await;
    let expected = status["deliveries"].as_array().expect("a list").len();
    let wanted = text(number);
    provider
        .wait_until("it arrived", |requests| {
            requests.iter().filter(|r| r.text().contains(&wanted)).count() == expected
        })
        .await;
    let requests = provider.requests();
    requests.iter().filter(|r| r.text().contains(&wanted)).map(|r| r.destination.clone()).collect()
}

fn to_phone(phone: &str) -> String {
    format!("[fallback]\nname = \"Everybody\"\nsms = [\"{phone}\"]\n")
}

/// Waits until the service has read the subscribers file again after `change`, with that result.
async fn after_reload(installation: &Installation, service: &Program, accepted: bool, change: impl FnOnce()) {
    let reads = |log: &[String]| {
        let parts = ["the subscribers file was read anew", "the new subscribers file is refused"];
        log.iter().filter(|line| line.contains(parts[usize::from(!accepted)])).count()
    };
    let before = reads(&service.log());
    change();
    let end = Instant::now() + Duration::from_secs(60);
    while reads(&service.log()) == before {
        assert!(Instant::now() < end, "the change was not noticed");
        tokio::time::sleep(LOOK).await;
    }
    let line = format!("sms_broadcaster_config_reload_success {}", u8::from(accepted));
    installation.wait_for_metric(service, &line).await;
}

#[tokio::test]
async fn the_subscribers_file_is_read_anew_however_it_is_replaced_and_a_faulty_one_is_refused_whole() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, "");
    let [first, second] = PHONES;
    let file = installation.folder().join("subscribers.toml");
    installation.write_subscribers(&to_phone(first));
    let service = installation.start("sms-broadcaster").await;
    assert_eq!(recipients_of(&installation, &provider, &service, 1).await, [first]);

    // Written in place.
    after_reload(&installation, &service, true, || fs::write(&file, to_phone(second)).unwrap()).await;
    assert_eq!(recipients_of(&installation, &provider, &service, 2).await, [second]);

    // Replaced by another file, as editors do.
    after_reload(&installation, &service, true, || {
        let other = installation.folder().join(".subscribers.toml.swp");
        fs::write(&other, to_phone(first)).unwrap();
        fs::rename(&other, &file).unwrap();
    })
    .await;
    assert_eq!(recipients_of(&installation, &provider, &service, 3).await, [first]);

    // With a fault beside what is good: nothing of it comes into force.
    after_reload(&installation, &service, false, || {
        fs::write(&file, to_phone(second) + "slcak = [\"https://example.com/x\"]\n").unwrap();
    })
    .await;
    assert_eq!(recipients_of(&installation, &provider, &service, 4).await, [first]);
    let refused = service.log().into_iter().find(|line| line.contains("is refused")).unwrap();
    assert!(refused.contains("subscribers.toml:4") && refused.contains("slcak"), "{refused}");

    // A file that is gone is a fault too.
    after_reload(&installation, &service, false, || fs::remove_file(&file).unwrap()).await;
    assert_eq!(recipients_of(&installation, &provider, &service, 5).await, [first]);
    after_reload(&installation, &service, true, || fs::write(&file, to_phone(second)).unwrap()).await;
    assert_eq!(recipients_of(&installation, &provider, &service, 6).await, [second]);
}

/// A mounted Kubernetes ConfigMap: the file is a link through `..data`, which is turned to a new folder.
#[tokio::test]
async fn a_turned_link_of_a_mounted_volume_is_noticed() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, "");
    let [first, second] = PHONES;
    let folder = installation.folder();
    let version = |name: &str, text: String| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("subscribers.toml"), text).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version("..1", to_phone(first));
    fs::remove_file(folder.join("subscribers.toml")).unwrap();
    symlink("..data/subscribers.toml", folder.join("subscribers.toml")).unwrap();
    let service = installation.start("sms-broadcaster").await;
    assert_eq!(recipients_of(&installation, &provider, &service, 1).await, [first]);
    after_reload(&installation, &service, true, || {
        version("..2", to_phone(second));
        fs::remove_dir_all(folder.join("..1")).unwrap();
    })
    .await;
    assert_eq!(recipients_of(&installation, &provider, &service, 2).await, [second]);
}

#[tokio::test]
async fn sighup_reads_a_file_whose_change_cannot_be_noticed() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, "");
    let [first, second] = PHONES;
    // The file named in the configuration is a link to another folder, which nobody watches.
    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().join("real.toml");
    fs::write(&real, to_phone(first)).unwrap();
    let link = installation.folder().join("subscribers.toml");
    fs::remove_file(&link).unwrap();
    symlink(&real, &link).unwrap();
    let service = installation.start("sms-broadcaster").await;
    assert_eq!(recipients_of(&installation, &provider, &service, 1).await, [first]);
    after_reload(&installation, &service, true, || {
        fs::write(&real, to_phone(second)).unwrap();
        service.signal("HUP");
    })
    .await;
    assert_eq!(recipients_of(&installation, &provider, &service, 2).await, [second]);
    after_reload(&installation, &service, false, || {
        fs::write(&real, "[fallback\n").unwrap();
        service.signal("HUP");
    })
    .await;
    assert_eq!(recipients_of(&installation, &provider, &service, 3).await, [second]);
}
