//! The README's table of metrics is what the programs serve, to the word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::delivery::ChannelId;
use sms_broadcaster::metrics::{
    IngressMetrics, Metrics, QueueMetrics, RedisMetrics, TelemetryMetrics, WorkerMetrics,
};
use sms_broadcaster::source::twilio::SOURCE;

use crate::support::installation::{Installation, PHONES, sid};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Everything that any of the programs serves, as a scrape reads it.
fn scrape() -> String {
    let metrics = Metrics::new(Timestamp::from_millis(1_500));
    let _queue = QueueMetrics::register(&metrics, 1_000);
    let _telemetry = TelemetryMetrics::register(&metrics);
    let _redis = RedisMetrics::register(&metrics);
    let _ingress = IngressMetrics::register(&metrics, &[SOURCE]);
    let channels = [ChannelId::sms(), ChannelId::slack()];
    let _worker = WorkerMetrics::register(&metrics, &channels, Duration::from_secs(600));
    metrics.render()
}

/// The row that the README should have for each metric.
fn rows(scrape: &str) -> Vec<String> {
    let mut help = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name, text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kinds.insert(name, kind);
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            let (name, inner) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let name = base.filter(|base| help.contains_key(base)).unwrap_or(name);
            let named = labels.entry(name).or_default();
            let pairs = inner.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            named.extend(pairs.map(|(label, _)| label).filter(|label| *label != "le"));
        }
    }
    help.iter()
        .map(|(name, text)| {
            let short = name.strip_prefix("sms_broadcaster_").expect("every name has the prefix");
            let labels: Vec<String> = labels[name].iter().map(|label| format!("`{label}`")).collect();
            format!("| `{short}` | {} | {} | {text} |", kinds[name], labels.join(", "))
        })
        .collect()
}

#[test]
fn the_readme_lists_every_metric_as_it_is_served() {
    let readme = include_str!("../README.md");
    let (_, table) =
        readme.split_once("| name | kind | labels | meaning |\n|---|---|---|---|\n").expect("the table");
    let listed: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let served = rows(&scrape());
    assert!(listed == served, "the README's table should be:\n{}", served.join("\n"));
}

#[test]
fn every_series_is_there_from_the_start() {
    let text = scrape();
    for line in [
        r#"sms_broadcaster_webhooks_total{result="accepted",source="twilio"} 0"#,
        r#"sms_broadcaster_webhooks_total{result="looped",source="twilio"} 0"#,
        "sms_broadcaster_webhook_duration_seconds_count 0",
        r#"sms_broadcaster_messages_routed_total{match="fallback"} 0"#,
        r#"sms_broadcaster_delivery_attempts_total{channel="sms",outcome="delivered",reason="ok"} 0"#,
        r#"sms_broadcaster_attempt_duration_seconds_count{channel="slack"} 0"#,
        r#"sms_broadcaster_deliveries_total{channel="sms",state="expired"} 0"#,
        r#"sms_broadcaster_deliveries_died_total{cause="unroutable",channel="in"} 0"#,
        r#"sms_broadcaster_delivery_latency_seconds_count{channel="sms"} 0"#,
        r#"sms_broadcaster_queue_depth{channel="in",state="ready"} 0"#,
        r#"sms_broadcaster_oldest_ready_age_seconds{channel="in"} 0"#,
        r#"sms_broadcaster_last_claim_timestamp_seconds{channel="in"} 0"#,
        r#"sms_broadcaster_dead_letters{cause="undecryptable"} 0"#,
        r#"sms_broadcaster_rate_limited_seconds_total{channel="sms"} 0"#,
        r#"sms_broadcaster_channel_paused{channel="slack"} 0"#,
        r#"sms_broadcaster_worker_slots_in_use{channel="slack"} 0"#,
        r#"sms_broadcaster_worker_slow_attempts{channel="slack"} 0"#,
        r#"sms_broadcaster_queue_call_duration_seconds_count{call="housekeep"} 0"#,
        r#"sms_broadcaster_queue_call_errors_total{call="accept",kind="exhausted"} 0"#,
        "sms_broadcaster_queue_up 0",
        "sms_broadcaster_queue_capacity 1000",
        "sms_broadcaster_message_deadline_seconds 600",
        "sms_broadcaster_redis_evicted_keys_total 0",
        "sms_broadcaster_leases_reclaimed_total 0",
        "sms_broadcaster_leases_lost_total 0",
        "sms_broadcaster_stream_group_recreated_total 0",
        "sms_broadcaster_queue_reconnects_total 0",
        "sms_broadcaster_late_successes_total 0",
        "sms_broadcaster_conservation_error 0",
        "sms_broadcaster_config_reload_success 0",
        "sms_broadcaster_config_reload_timestamp_seconds 0",
        "sms_broadcaster_spool_messages 0",
        r#"sms_broadcaster_telemetry_spans_total{result="dropped"} 0"#,
        "sms_broadcaster_draining 0",
        "sms_broadcaster_start_time_seconds 1.5",
        concat!("sms_broadcaster_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn attempts_in_flight_are_shown_while_they_last() {
    let metrics = Metrics::new(Timestamp::from_millis(0));
    let worker = WorkerMetrics::register(&metrics, &[ChannelId::sms()], Duration::from_secs(600));
    let shown = |state: &str| {
        let prefix = format!("sms_broadcaster_worker_{state}{{channel=\"sms\"}} ");
        let text = metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix)).expect("the series");
        value.parse::<u32>().expect("a count")
    };
    let quick = worker.in_flight("sms");
    let mut slow = worker.in_flight("sms");
    assert_eq!((shown("slots_in_use"), shown("slow_attempts")), (2, 0));
    slow.turn_slow();
    assert_eq!((shown("slots_in_use"), shown("slow_attempts")), (1, 1));
    drop((quick, slow));
    assert_eq!((shown("slots_in_use"), shown("slow_attempts")), (0, 0));
}

#[tokio::test]
async fn running_programs_show_what_they_do_and_what_became_of_their_store() {
    let mut redis = RedisServer::start();
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::hang());
    provider.always(PHONES[1], Reply::twilio_error(400, 21211));
    let installation = Installation::redis(&provider, &redis.url(), "[retry]\nmax_attempts = 1\n");
    let ingress = installation.start("sms-ingress").await;
    let worker = installation.start("sms-worker").await;
    for program in [&ingress, &worker] {
        installation.wait_for_metric(program, "sms_broadcaster_queue_up 1").await;
        installation.wait_for_metric(program, "sms_broadcaster_redis_persistence_ok 1").await;
        installation.wait_for_metric(program, "sms_broadcaster_redis_noeviction 1").await;
    }
    installation.wait_for_metric(&worker, "sms_broadcaster_worker_slots{channel=\"sms\"} 64").await;

    assert_eq!(installation.post(ingress.ingress, &sid(1), "+12223334444", "code 123456").await, Some(200));
    // The hanging phone's attempt is soon a slow one; the other's is refused for good.
    installation.wait_for_metric(&worker, "sms_broadcaster_worker_slow_attempts{channel=\"sms\"} 1").await;
    let died = "sms_broadcaster_deliveries_died_total{cause=\"permanent\",channel=\"sms\"} 1";
    installation.wait_for_metric(&worker, died).await;
    let (_, text) = installation.ops(&worker, "metrics").await.expect("the worker's metrics");
    for call in ["claim", "expand", "settle"] {
        let never = format!("sms_broadcaster_queue_call_duration_seconds_count{{call=\"{call}\"}} 0");
        assert!(!text.lines().any(|line| line == never), "{call} was called");
    }
    for lane in ["in", "sms"] {
        let never = format!("sms_broadcaster_last_claim_timestamp_seconds{{channel=\"{lane}\"}} 0");
        assert!(!text.lines().any(|line| line == never), "{lane} was claimed from");
    }

    redis.kill();
    for program in [&ingress, &worker] {
        installation.wait_for_metric(program, "sms_broadcaster_queue_up 0").await;
    }
    redis.restart();
    for program in [&ingress, &worker] {
        installation.wait_for_metric(program, "sms_broadcaster_queue_up 1").await;
    }
}
