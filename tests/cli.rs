//! `smsctl` as an operator runs it: the real program on real stores.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::{ChannelId, Settlement};
use sms_broadcaster::queue::contract::{Lane, Owner};

use self::bench::{Bench, LOST, OUR_NUMBER, ROUTED, Ran, WAITING, add_dead_letters, claim, finish, settle};

mod bench;
mod inspect;
mod sending;
mod usage;

/// Every test of a store is run on a file beside a service that has it open, on one that nobody has open,
/// and on Redis.
macro_rules! on_every_store {
    ($($clause:ident)*) => {
        mod beside_a_service {
            $(#[tokio::test] async fn $clause() { super::$clause(super::Bench::beside_service().await).await; })*
        }
        mod without_a_service {
            $(#[tokio::test] async fn $clause() { super::$clause(super::Bench::alone().await).await; })*
        }
        mod on_redis {
            $(#[tokio::test] async fn $clause() { super::$clause(super::Bench::on_redis().await).await; })*
        }
    };
}

on_every_store! {
    counts_are_sums_over_all_channels
    a_message_is_shown_with_the_state_of_each_delivery
    dead_letters_are_listed_newest_first_and_chosen_by_filters
    a_dead_letter_shows_its_attempts_and_its_text_only_when_told_to
    a_requeued_letter_is_pending_again_alone_and_only_once
    all_letters_are_requeued_only_with_yes_and_a_dry_run_changes_nothing
    unknown_letters_are_told_and_the_others_are_done
    a_fresh_deadline_is_the_given_one_or_the_configuration_s
    purged_letters_are_gone_and_counted_as_before
    requeues_at_once_send_each_letter_back_once
    check_reaches_the_queue
    the_doctor_finds_what_was_done_to_the_store_and_puts_it_right
}

async fn the_doctor_finds_what_was_done_to_the_store_and_puts_it_right(bench: Bench) {
    let before = stats(&bench);
    assert_eq!(bench.smsctl(&["doctor"]).fine().out, "ok  the store holds what it must\n");
    bench.miscount(WAITING);

    let page = bench.smsctl(&["doctor"]).failed(1, "the store does not hold what it must").out;
    assert!(page.starts_with("found  ") && page.contains(WAITING), "{page}");
    assert!(page.ends_with("`smsctl doctor --repair` puts right what can be.\n"), "{page}");
    let found = bench.smsctl(&["doctor", "--json"]).failed(1, "the store").json();
    assert_fields(&found, &["sound", "findings", "done", "left"]);
    assert_eq!((&found["sound"], &found["done"], &found["left"]), (&json!(false), &json!([]), &json!([])));

    let repaired = bench.smsctl(&["doctor", "--repair", "--json"]).fine().json();
    assert_eq!((&repaired["sound"], &repaired["left"]), (&json!(true), &json!([])));
    assert_eq!(repaired["findings"], found["findings"]);
    assert!(repaired["done"].as_array().is_some_and(|done| !done.is_empty()), "{repaired}");
    let again = bench.smsctl(&["doctor", "--repair"]).fine().out;
    assert_eq!(again, "ok  the store holds what it must\n");
    let mut after = stats(&bench);
    after["oldest_ready_age_s"] = before["oldest_ready_age_s"].clone();
    assert_eq!(after, before);
}

fn dead(id: &str, index: u16) -> String {
    format!("{id}/{index}")
}

/// Asserts that a JSON object has these fields and no others.
fn assert_fields(object: &Value, fields: &[&str]) {
    let mut found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = fields.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    assert!(text.len() == 24 && text.starts_with("20") && text.ends_with('Z'), "{value}");
    assert_eq!((&text[10..11], &text[19..20]), ("T", "."), "{value}");
}

fn stats(bench: &Bench) -> Value {
    bench.smsctl(&["stats", "--json"]).fine().json()
}

async fn counts_are_sums_over_all_channels(bench: Bench) {
    let mut counts = stats(&bench);
    let age = counts.as_object_mut().unwrap().remove("oldest_ready_age_s").unwrap();
    assert!((0.0..600.0).contains(&age.as_f64().unwrap()), "{age}");
    let expected = json!({
        "accepted": 3,
        "duplicates": 1,
        "deliveries": {"delivered": 1, "dead": 2, "expired": 1, "pending": 1},
        "ready": 1,
        "leased": 0,
        "delayed": 0,
        "dead_letters": 3,
    });
    assert_eq!(counts, expected);

    let page = bench.smsctl(&["stats"]).fine().out;
    for part in ["3 accepted   1 duplicate\n", "1 delivered   2 dead   1 expired   1 pending\n", "\nslack "] {
        assert!(page.contains(part), "{part:?}: {page}");
    }
    assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
}

async fn a_message_is_shown_with_the_state_of_each_delivery(bench: Bench) {
    let mut message = bench.smsctl(&["status", ROUTED, "--json"]).fine().json();
    assert_time(&message["deadline"]);
    message.as_object_mut().unwrap().remove("deadline");
    let expected = json!({
        "message_id": ROUTED,
        "state": "done",
        "deliveries": [
            {"channel": "sms", "destination": "+1******2222", "state": "dead", "attempts": 1},
            {"channel": "slack", "destination": "hooks.slack.com/…", "state": "delivered", "attempts": 1},
        ],
    });
    assert_eq!(message, expected);
    let lost = bench.smsctl(&["status", LOST, "--json"]).fine().json();
    assert_eq!(
        (&lost["deliveries"][0]["state"], &lost["deliveries"][1]["state"]),
        (&json!("expired"), &json!("dead"))
    );
    let waiting = bench.smsctl(&["status", WAITING, "--json"]).fine().json();
    assert_eq!((&waiting["state"], &waiting["deliveries"]), (&json!("accepted"), &json!([])));
    assert!(bench.smsctl(&["status", ROUTED]).fine().out.contains("delivered"));

    for unknown in ["SM0123456789abcdef0123456789abcdef", "nonsense", "a\u{1b}[2J"] {
        let ran = bench.smsctl(&["status", unknown, "--json"]).failed(1, "no message");
        assert_eq!(ran.out, "");
        assert!(!ran.err.contains('\u{1b}'), "{:?}", ran.err);
    }
}

fn ids(letters: &Value) -> Vec<&str> {
    letters.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

async fn dead_letters_are_listed_newest_first_and_chosen_by_filters(bench: Bench) {
    let letters = bench.smsctl(&["dead", "list", "--json"]).fine().json();
    let died: Vec<&str> =
        letters.as_array().unwrap().iter().map(|l| l["died_at"].as_str().unwrap()).collect();
    assert!(died.is_sorted_by(|newer, older| newer >= older), "{died:?}");
    let letter = letters.as_array().unwrap().iter().find(|l| l["message_id"] == ROUTED).unwrap();
    let fields = [
        "id",
        "message_id",
        "channel",
        "destination",
        "subscriber",
        "cause",
        "attempts",
        "maybe_sent",
        "accepted_at",
        "died_at",
        "last_error",
    ];
    assert_fields(letter, &fields);
    assert_time(&letter["accepted_at"]);
    assert_time(&letter["died_at"]);
    for (field, value) in [
        ("id", json!(dead(ROUTED, 1))),
        ("channel", json!("sms")),
        ("destination", json!("+1******2222")),
        ("subscriber", json!("GitHub")),
        ("cause", json!("exhausted")),
        ("attempts", json!(1)),
        ("maybe_sent", json!(false)),
        ("last_error", json!("server, HTTP 503, code 20500")),
    ] {
        assert_eq!(letter[field], value, "{field}");
    }

    let chosen = |filters: &[&str]| {
        let letters = bench.smsctl(&[&["dead", "list", "--json"], filters].concat()).fine().json();
        let mut found: Vec<String> = ids(&letters).into_iter().map(str::to_owned).collect();
        found.sort();
        found
    };
    let all = vec![dead(ROUTED, 1), dead(LOST, 1), dead(LOST, 2)];
    assert_eq!(chosen(&[]), all);
    assert_eq!(chosen(&["--channel", "slack"]), [dead(LOST, 2)]);
    assert_eq!(chosen(&["--cause", "expired"]), [dead(LOST, 1)]);
    assert_eq!(chosen(&["--channel", "sms", "--cause", "exhausted"]), [dead(ROUTED, 1)]);
    assert_eq!(chosen(&["--subscriber", "GitHub", "--since", "1h"]), all);
    assert_eq!(chosen(&["--subscriber", "Nobody"]), Vec::<String>::new());
    assert_eq!(chosen(&["--limit", "2"]).len(), 2);
    assert_eq!(chosen(&["--channel", "in"]).len(), 0);

    let page = bench.smsctl(&["dead", "list", "--limit", "3"]).fine().out;
    assert_eq!(page.lines().count(), 5, "{page}");
    assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
    assert_eq!(bench.smsctl(&["dead", "list", "--cause", "poison"]).fine().out, "No dead letters.\n");
}

async fn a_dead_letter_shows_its_attempts_and_its_text_only_when_told_to(bench: Bench) {
    let id = dead(ROUTED, 1);
    let listed = bench.smsctl(&["dead", "list", "--cause", "exhausted", "--json"]).fine().json();
    let mut shown = bench.smsctl(&["dead", "show", &id, "--json"]).fine().json();
    let history = shown.as_object_mut().unwrap().remove("history").unwrap();
    assert_eq!(shown, listed[0]);
    let at = "2026-01-01T00:00:00.000Z";
    assert_eq!(history, json!([{"at": at, "outcome": "retry", "reason": "server", "status": 503}]));
    let page = bench.smsctl(&["dead", "show", &id]).fine().out;
    assert!(page.contains("exhausted") && page.contains(at) && page.contains("20500"), "{page}");

    let revealed = bench.smsctl(&["dead", "show", "--reveal", &id, "--json"]);
    assert_eq!((revealed.code, revealed.err.as_str()), (0, ""));
    let revealed = revealed.json();
    let text = |field: &str| revealed[field].as_str().unwrap().to_owned();
    assert_eq!(text("body"), "Your code is 493817");
    assert_eq!((text("from"), text("to")), ("+12223334444".to_owned(), OUR_NUMBER.to_owned()));
    assert_eq!(revealed["history"].as_array().unwrap().len(), 1);
    assert!(bench.smsctl(&["dead", "show", "--reveal", &id]).out.contains("  | Your code is 493817\n"));

    for unknown in [dead(ROUTED, 2), dead(ROUTED, 99), "nonsense".to_owned(), dead(WAITING, 0)] {
        let ran = bench.smsctl(&["dead", "show", &unknown, "--json"]).failed(1, "no dead letter");
        assert_eq!(ran.out, "");
    }
}

async fn a_requeued_letter_is_pending_again_alone_and_only_once(bench: Bench) {
    let id = dead(LOST, 1);
    assert_eq!(bench.smsctl(&["requeue", &id]).fine().out, "Requeued 1 dead letter.\n");
    let counts = stats(&bench);
    let deliveries = json!({"delivered": 1, "dead": 2, "expired": 0, "pending": 2});
    assert_eq!((&counts["deliveries"], &counts["dead_letters"]), (&deliveries, &json!(2)));
    let lost = bench.smsctl(&["status", LOST, "--json"]).fine().json();
    assert_eq!(lost["state"], "expanded");
    assert_eq!(
        (&lost["deliveries"][0]["state"], &lost["deliveries"][1]["state"]),
        (&json!("pending"), &json!("dead"))
    );

    let again = bench.smsctl(&["dead", "requeue", &id, "--json"]).failed(1, &id);
    assert_eq!(again.json(), json!({"requeued": 0, "skipped": 0}));
    assert_eq!(stats(&bench)["deliveries"], deliveries);

    if let Some(queue) = &bench.queue {
        let (owner, lane) = (Owner::new("worker"), Lane::of(&ChannelId::sms()));
        let work = claim(&**queue, &owner, &lane).await;
        assert_eq!((work.len(), work[0].attempts, work[0].handed_out), (1, 0, 1), "as if new");
        settle(&**queue, &owner, work, |_| Settlement::Delivered).await;
        assert_eq!(queue.audit().await.unwrap(), Vec::<String>::new());
    }
}

async fn all_letters_are_requeued_only_with_yes_and_a_dry_run_changes_nothing(bench: Bench) {
    let before = stats(&bench)["deliveries"].clone();
    let refused = bench.smsctl(&["requeue", "--all", "--json"]).failed(2, "--yes");
    assert_eq!(refused.out, "");
    let dry = bench.smsctl(&["dead", "requeue", "--all", "--dry-run", "--json"]).fine();
    assert_eq!(dry.json(), json!({"requeued": 3, "skipped": 0}));
    let page = bench.smsctl(&["requeue", "--all", "--dry-run", "--channel", "sms"]).fine().out;
    assert_eq!(page, "Would requeue 2 dead letters.\n");
    let id = dead(ROUTED, 1);
    assert_eq!(bench.smsctl(&["requeue", &id, "--dry-run", "--json"]).fine().json()["requeued"], 1);
    assert_eq!(stats(&bench)["deliveries"], before);

    let some = bench.smsctl(&["requeue", "--all", "--yes", "--cause", "permanent", "--json"]).fine();
    assert_eq!(some.json(), json!({"requeued": 1, "skipped": 0}));
    let rest = bench.smsctl(&["dead", "requeue", "--all", "--yes", "--json"]).fine();
    assert_eq!(rest.json(), json!({"requeued": 2, "skipped": 0}));
    let none = bench.smsctl(&["dead", "requeue", "--all", "--yes", "--json"]).fine();
    assert_eq!(none.json(), json!({"requeued": 0, "skipped": 0}));
    let counts = stats(&bench);
    assert_eq!(counts["deliveries"], json!({"delivered": 1, "dead": 0, "expired": 0, "pending": 4}));
    assert_eq!((&counts["ready"], &counts["dead_letters"]), (&json!(4), &json!(0)));
}

async fn unknown_letters_are_told_and_the_others_are_done(bench: Bench) {
    let (known, other) = (dead(ROUTED, 1), dead(LOST, 2));
    let ran = bench.smsctl(&["requeue", "nonsense", &known, "--json", &dead(ROUTED, 9)]);
    assert_eq!((ran.code, ran.json()), (1, json!({"requeued": 1, "skipped": 0})));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("nonsense") && lines[1].contains("/9"), "{lines:?}");
    let ran = bench.smsctl(&["dead", "purge", &known, &other]).failed(1, &known);
    assert_eq!(ran.out, "Purged 1 dead letter.\n");
    let twice = bench.smsctl(&["requeue", &dead(LOST, 1), &dead(LOST, 1), "--json"]).fine();
    assert_eq!(twice.json(), json!({"requeued": 1, "skipped": 0}));
}

async fn a_fresh_deadline_is_the_given_one_or_the_configuration_s(bench: Bench) {
    bench.write_config("[message]\ndeadline = \"20m\"\n");
    let deadline_after = |arguments: &[&str], id: &str| {
        let before = Clock::system().now();
        bench.smsctl(arguments).fine();
        let after = Clock::system().now();
        let message = bench.smsctl(&["status", id, "--json"]).fine().json();
        (before, message["deadline"].as_str().unwrap().to_owned(), after)
    };
    // RFC 3339 in UTC sorts as it reads.
    let within = |(before, deadline, after): (_, String, _), length| {
        let times = |at: sms_broadcaster::clock::Timestamp| at.plus(length).to_string();
        assert!((times(before)..=times(after)).contains(&deadline), "{deadline}");
    };
    let given = ["requeue", &dead(ROUTED, 1), "--deadline", "25m"];
    within(deadline_after(&given, ROUTED), Duration::from_secs(25 * 60));
    let default = ["requeue", &dead(LOST, 1), &dead(LOST, 2)];
    within(deadline_after(&default, LOST), Duration::from_secs(20 * 60));
}

async fn purged_letters_are_gone_and_counted_as_before(bench: Bench) {
    let id = dead(ROUTED, 1);
    assert_eq!(bench.smsctl(&["dead", "purge", &id, "--json"]).fine().json(), json!({"purged": 1}));
    bench.smsctl(&["dead", "show", &id]).failed(1, &id);
    bench.smsctl(&["requeue", &id]).failed(1, &id);
    bench.smsctl(&["dead", "purge", "--all"]).failed(2, "--yes");
    assert_eq!(stats(&bench)["dead_letters"], 2);
    let looked = bench.smsctl(&["dead", "purge", "--all", "--dry-run"]).fine();
    assert_eq!(looked.out, "Would purge 2 dead letters.\n");
    let purged = bench.smsctl(&["dead", "purge", "--all", "--yes", "--since", "1h"]).fine();
    assert_eq!(purged.out, "Purged 2 dead letters.\n");
    let counts = stats(&bench);
    assert_eq!(counts["dead_letters"], 0);
    assert_eq!(counts["deliveries"], json!({"delivered": 1, "dead": 2, "expired": 1, "pending": 1}));
}

async fn requeues_at_once_send_each_letter_back_once(bench: Bench) {
    let spawn = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let together = |arguments: &[&str]| -> Vec<Ran> {
        let children: Vec<_> = (0..4).map(|_| spawn(arguments)).collect();
        children.into_iter().map(finish).collect()
    };
    let id = dead(LOST, 2);
    let one = together(&["requeue", &id, "--json"]);
    assert_eq!(one.iter().filter(|ran| ran.code == 0).count(), 1);
    assert!(one.iter().all(|ran| matches!(ran.code, 0 | 1)));
    assert_eq!(one.iter().map(|ran| ran.json()["requeued"].as_u64().unwrap()).sum::<u64>(), 1);

    let all = together(&["requeue", "--all", "--yes", "--json"]);
    assert!(all.iter().all(|ran| ran.code == 0));
    assert_eq!(all.iter().map(|ran| ran.json()["requeued"].as_u64().unwrap()).sum::<u64>(), 2);
    let counts = stats(&bench);
    assert_eq!(counts["deliveries"], json!({"delivered": 1, "dead": 0, "expired": 0, "pending": 4}));
    assert_eq!(counts["ready"], 4);
}

/// Three letters of the bench, the message that waited, and 300 more.
async fn beyond_one_batch(bench: Bench) {
    add_dead_letters(&**bench.queue.as_ref().unwrap(), 300).await;
    let listed = |arguments: &[&str]| {
        let letters = bench.smsctl(&[&["dead", "list", "--json"], arguments].concat()).fine().json();
        letters.as_array().unwrap().len()
    };
    assert_eq!(listed(&[]), 50);
    assert_eq!(listed(&["--limit", "1000"]), 304);
    assert_eq!(listed(&["--limit", "200", "--cause", "exhausted"]), 200);
    let dry = bench.smsctl(&["requeue", "--all", "--dry-run", "--cause", "exhausted", "--json"]).fine();
    assert_eq!(dry.json(), json!({"requeued": 302, "skipped": 0}));
    let requeued = bench.smsctl(&["requeue", "--all", "--yes", "--cause", "exhausted", "--json"]).fine();
    assert_eq!(requeued.json(), json!({"requeued": 302, "skipped": 0}));
    assert_eq!((&stats(&bench)["ready"], &stats(&bench)["dead_letters"]), (&json!(302), &json!(2)));
}

#[tokio::test]
async fn more_letters_than_a_batch_holds_go_back_beside_a_service() {
    beyond_one_batch(Bench::beside_service().await).await;
}

#[tokio::test]
async fn more_letters_than_a_batch_holds_go_back_on_redis() {
    beyond_one_batch(Bench::on_redis().await).await;
}

async fn check_reaches_the_queue(bench: Bench) {
    let page = bench.smsctl(&["check"]).fine().out;
    assert_eq!(page.lines().count(), 3, "{page}");
    assert!(page.contains("1 subscriber and the fallback") && page.contains(": reached\n"), "{page}");
}
